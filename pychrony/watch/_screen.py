"""The live view: what is on the screen, and its keys."""

from __future__ import annotations

import signal
import time
from collections import deque
from contextlib import aclosing
from itertools import zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING, ClassVar

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text
from textual.app import App
from textual.binding import Binding
from textual.containers import ScrollableContainer
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Footer, Static

from pychrony import ChronyError, SelectState, SourceState, Transport, _chronyc

from ._graph import Point, draw, scale, shown
from ._terminal import TerminalDriver, end_with_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console, ConsoleOptions, RenderResult
    from textual.app import ComposeResult
    from textual.binding import BindingType

    from pychrony import AsyncChronyConnection, TrackingStatus

    from ._follow import Reading, Readings

# As many readings as a terminal of 2000 columns has room for.
_HISTORY = 4000

_ASKING = "asking chronyd"

# Wide enough for the longest label of the scale.
_MARGIN = 9

_NO_BREAK = "\N{NO-BREAK SPACE}"

# In the colours of Textual's themes, which are made to be read on each other.
_INKS = {
    "offset": "$foreground",
    "bound": "$text-primary",
    "zero": "$foreground 40%",
    "": "",
}
_INSIDE = "on $primary-muted"

_COLOURS = {
    SourceState.SELECTED: "bold green",
    SourceState.UNSELECTED: "green",
    SourceState.JITTERY: "yellow",
    SourceState.FALSETICKER: "red",
    SourceState.NONSELECTABLE: "red",
}

# As short as the column of the last sample, under which a narrow screen has them.
_REASONS = {
    SelectState.IGNORED: "ignored: noselect",
    SelectState.NOT_SYNCHRONIZED: "not synchronised",
    SelectState.MISSING_SAMPLES: "too few measurements",
    SelectState.UNACCEPTABLE_DISTANCE: "above maxdistance",
    SelectState.JITTERY: "above maxjitter",
    SelectState.WAITING_FOR_OTHERS: "waits for measured others",
    SelectState.STALE: "measurements too old",
    SelectState.ORPHAN: "stratum of an orphan",
    SelectState.NOT_TRUSTED: "disagrees with the trusted",
    SelectState.FALSETICKER: "disagrees with the majority",
    SelectState.MISSING_SELECTABLE_SOURCES: "waits for selectable others",
    SelectState.NOT_PREFERRED: "another one is preferred",
    SelectState.WAITING_FOR_UPDATE: "waits for a measurement",
    SelectState.LARGE_DISTANCE: "too distant to combine",
    SelectState.OUTLIER: "too different to combine",
    SelectState.UNACCEPTABLE_STRATUM: "stratum out of range",
    SelectState.UNKNOWN: "not yet in any selection",
    SelectState.COMBINED: "combined",
    SelectState.BEST: "selected",
}

_USED = (SelectState.BEST, SelectState.COMBINED)

_NO_REASONS = (
    "No reasons of the selection: chronyd gives them to root and its own user only, "
    "over its Unix socket."
)

_LEGEND = """\
M       ^ server  = peer  # reference clock
S       * selected  + combined with it  - not combined
        x may be in error  ~ too variable  ? unusable
Poll    interval of the measurements, as a power of 2 [s]
Reach   which of the last eight were answered, in octal: 377 is all
LastRx  time since the last good measurement [s]
Last sample  xxxx[yyyy] +/- zzzz: offset as adjusted since, as measured, its
        error bound; positive: this clock is ahead of the source
Graph   the offset (positive: this clock is behind) within the error bound
"""


class _Graph(Widget):
    """As many of the points as there is room for, the newest at the right."""

    points: tuple[Point, ...] = ()
    bounded = True

    def render(self) -> Content:
        width, height = self.size.width - _MARGIN, self.size.height - 1
        if not self.points or width < 1 or height < 1:
            return Content()
        points = shown(self.points, width)
        limit = scale(points, bounded=self.bounded)
        labels = {
            height // 2: "0",
            height - 1: _chronyc.seconds(-limit),
            0: _chronyc.seconds(limit, "+"),
        }
        parts: list[str | tuple[str, str]] = []
        for number, runs in enumerate(draw(points, width, height, limit)):
            parts.append(f"{labels.get(number, ''):>{_MARGIN - 1}} ")
            for text, ink, inside in runs:
                parts.append((text, f"{_INKS[ink]} {_INSIDE if inside else ''}"))
            parts.append("\n")
        ago = f"{points[-1].time - points[0].time:.0f} s ago"
        room = (len(points) + 1) // 2 - len("now")
        if len(ago) < room:
            parts.append(f"{ago:<{room}}now".rjust(self.size.width))
        return Content.assemble(*parts)


class LiveView(App[None]):
    """What the readings show, until a key, a signal or their end.

    Its ``return_code`` is that of the process.
    """

    TITLE = "pychrony"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #clock, #state { height: auto; padding: 0 1; }
    _Graph { height: 1fr; min-height: 5; margin: 1 1 0 0; }
    ScrollableContainer { height: auto; max-height: 50%; padding: 0 0 0 1;
        scrollbar-size-vertical: 1; }
    #legend { display: none; margin-bottom: 1; color: $text-muted; }
    #sources { height: auto; min-width: 78; }
    .old { opacity: 60%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape", "quit", "Quit"),
        Binding("ctrl+c", f"leave({signal.SIGINT.value})", show=False, priority=True),
        Binding("p,space", "pause", "Pause"),
        Binding("z", "zoom", "Zoom"),
        Binding("l,question_mark", "legend", "Legend"),
        Binding("t", "theme", "Light/dark"),
    ]

    def __init__(self, connection: AsyncChronyConnection, readings: Readings) -> None:
        super().__init__(driver_class=TerminalDriver)
        self._connection = connection
        self._readings = readings
        self._points: deque[Point] = deque(maxlen=_HISTORY)
        self._reading: Reading | None = None
        self._error: ChronyError | None = None
        self._updated = 0.0
        self._paused = False
        # Not to be looked for: a reading may come when they are gone already.
        self._clock = Static(id="clock")
        self._state = Static(_ASKING, id="state")
        self._graph = _Graph()
        self._legend = Static(_LEGEND, id="legend", markup=False)
        self._sources = Static(id="sources")

    def compose(self) -> ComposeResult:
        yield self._clock
        yield self._state
        yield self._graph
        yield ScrollableContainer(self._legend, self._sources)
        yield Footer()

    def on_mount(self) -> None:
        if isinstance(self._driver, TerminalDriver):
            end_with_terminal(self._driver, self.action_leave)
        self.run_worker(self._follow())

    async def _follow(self) -> None:
        async with aclosing(self._readings) as readings:
            async for reading in readings:
                self._take(reading)
        self.exit(return_code=int(self._error is not None))

    def _take(self, reading: Reading | ChronyError) -> None:
        if isinstance(reading, ChronyError):
            self._error = reading
            self._points.append(Point(time.monotonic()))
        else:
            self._error, self._reading, self._updated = None, reading, time.time()
            tracking = reading.tracking
            point = Point(time.monotonic(), tracking.offset, tracking.error_bound)
            self._points.append(point)
        if not self._paused:
            self._show()

    def _show(self) -> None:
        if self._reading is not None:
            self._clock.update(self._fields(self._reading.tracking))
            self._sources.update(_Sources(self._reading))
        parts: list[str | tuple[str, str]] = []
        if self._paused:
            parts += [(" PAUSED ", "reverse"), " "]
        if self._error is not None:
            parts.append((f"LOST: {self._error.message}", "$text-error"))
        elif self._reading is None:
            parts.append(_ASKING)
        self._state.update(Content.assemble(*parts))
        self._state.display = bool(parts)
        self._graph.points = tuple(self._points)
        self._graph.refresh()
        # They are not of now, then.
        for widget in (self._clock, self._sources):
            widget.set_class(self._error is not None, "old")

    def _fields(self, tracking: TrackingStatus) -> _Fields:
        unix = self._connection.transport is Transport.UNIX_SOCKET
        fields = [
            f"{self._connection.address} ({'Unix socket' if unix else 'UDP'})",
            *_chronyc.clock(tracking).values(),
            f"leap {_chronyc.LEAPS.get(tracking.leap_status, 'Invalid')}",
            f"frequency {tracking.frequency:+.3f} ppm",
            f"skew {tracking.skew:.3f} ppm",
            time.strftime("read at %H:%M:%S", time.localtime(self._updated)),
        ]
        return _Fields(fields)

    def action_leave(self, number: int) -> None:
        """End as a shell reports the end by this signal."""
        self.exit(return_code=128 + number)

    def action_pause(self) -> None:
        """Stop the picture, not the readings; or show them again."""
        self._paused = not self._paused
        self._show()

    def action_zoom(self) -> None:
        """Fit the scale to the offset, or to its error bound."""
        self._graph.bounded = not self._graph.bounded
        self._graph.refresh()

    def action_legend(self) -> None:
        """Explain the glyphs and columns, or do so no more."""
        self._legend.display = not self._legend.display

    def action_theme(self) -> None:
        """Change between light and dark."""
        dark = self.current_theme.dark
        self.theme = "textual-light" if dark else "textual-dark"


class _Fields:
    """Fields, as many in each line as there is room for."""

    def __init__(self, fields: Iterable[str]) -> None:
        # textwrap does not break at these, though Textual and rich do.
        words = (field.replace(" ", _NO_BREAK) for field in fields)
        self._chronyc = (" " * 3).join(words)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        lines = wrap(self._chronyc, options.max_width, break_on_hyphens=False)
        yield Text("\n".join(lines).replace(_NO_BREAK, " "))


class _Sources:
    """The table of the sources, with the reasons of the selection."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        table = self._table(beside=self._reading.selection is not None)
        # Of all that it would take, not only of what there is.
        boundless = options.update(max_width=10_000)
        if Measurement.get(console, boundless, table).maximum > options.max_width:
            table = self._table(beside=False)
        yield table
        if self._reading.selection is None:
            yield Text(_NO_REASONS, style="dim")

    def _table(self, *, beside: bool) -> Table:
        """Return it with the reasons in a column of their own, or below."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("MS", no_wrap=True)
        table.add_column("Name/IP address", overflow="fold", min_width=15)
        for name in ("Stratum", "Poll", "Reach", "LastRx"):
            table.add_column(name, no_wrap=True, justify="right")
        table.add_column("Last sample", no_wrap=True)
        if beside:
            table.add_column("Selection", no_wrap=True)
        selection = self._reading.selection or ()
        for source, state in zip_longest(self._reading.sources, selection):
            *cells, sample = _chronyc.source_cells(source)
            reason = _REASONS.get(state, "") if state else ""
            if beside:
                cells += [sample, reason]
            elif state in _USED:  # which the glyph says, too
                cells += [sample]
            else:
                cells += [f"{sample}\n{reason}".rstrip()]
            # As strings, rich would search them for markup.
            table.add_row(*map(Text, cells), style=_COLOURS.get(source.state))
        return table
