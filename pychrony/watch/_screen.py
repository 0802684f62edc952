"""The screen of the live view, and its keys."""

from __future__ import annotations

import signal
import time
from collections import Counter, deque
from contextlib import aclosing
from copy import copy
from typing import TYPE_CHECKING, ClassVar

from textual.app import App
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from pychrony import ChronyError, Transport, _chronyc
from pychrony.check._states import NAMES, OK, WORST_FIRST

from ._follow import follow
from ._graph import Point
from ._table import (
    NO_REASONS,
    Table,
    host_state,
    hosts_table,
    source_fields,
    sources_table,
    words,
)
from ._terminal import TerminalDriver, end_with_terminal
from ._widgets import Graph, Lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.events import Resize

    from pychrony import AsyncChronyConnection

    from ._follow import Reading

# As many readings as a terminal of 2000 columns can show.
_HISTORY = 4000

_ASKING = "reading chronyd"

# Between two updates of a list of clocks, whose readings come at any time [s].
_COALESCED = 0.2

# Minimum heights of the screen, in lines: for more than the table and one line of the
# clock; for a graph; for both the graph and the details of a source.
_SMALL, _MEDIUM, _LOW = 14, 20, 30

_FIELD_GAP = "   "

_COLOURS = ("", "$text-warning", "$text-error")

_KEYS = (
    "q quit",
    "\N{UPWARDS ARROW}\N{DOWNWARDS ARROW} choose",
    "l legend",
    "p pause",
    "z zoom",
    "t light/dark",
)
_HOSTS_KEYS = ("q quit", "\N{UPWARDS ARROW}\N{DOWNWARDS ARROW} choose", "Enter open")

# The check has another name for what the clock follows.
_ITEMS = {"source": "synchronised"}

_LEGEND = {
    "M": "^ server, = peer, # reference clock",
    "S": "* selected, + combined with it, - not combined, x may be in error, ~ too "
    "variable, ? unusable",
    "Poll": "interval of the measurements, as a power of 2 [s]",
    "Reach": "which of the last eight were answered, in octal: 377 is all",
    "LastRx": "time since the last good measurement [s]",
    "Last sample": "xxxx[yyyy] +/- zzzz: offset as adjusted since, as measured, its "
    "error bound; positive: this clock is ahead of the source",
    "Graph": "the offset (positive: this clock is behind) within the error bound",
}


def _legend(width: int) -> str:
    """Return the meanings of the glyphs and columns, in lines of this width."""
    indent = max(map(len, _LEGEND)) + 2
    lines: list[str] = []
    for name, meaning in _LEGEND.items():
        first, *others = words(meaning.split(), width - indent)
        lines += [name.ljust(indent) + first, *(" " * indent + one for one in others)]
    return "\n".join(lines)


class Host:
    """One chronyd that is watched.

    Attributes:
        name: as the user named it.
        reading: the last successful one.
        error: why the last one failed, or ``None``.
    """

    def __init__(self, name: str, connection: AsyncChronyConnection) -> None:
        self.name = name
        self.connection = connection
        self.points: deque[Point] = deque(maxlen=_HISTORY)
        self.reading: Reading | None = None
        self.error: ChronyError | None = None

    @property
    def last(self) -> Reading | ChronyError | None:
        return self.error or self.reading

    def take(self, reading: Reading | ChronyError) -> None:
        """Store a reading."""
        if isinstance(reading, ChronyError):
            self.error = reading
            self.points.append(Point(time.monotonic()))
        else:
            self.error, self.reading = None, reading
            tracking = reading.tracking
            point = Point(time.monotonic(), tracking.offset, tracking.error_bound)
            self.points.append(point)

    def frozen(self) -> Host:
        """Return a copy that does not change."""
        still = copy(self)
        still.points = self.points.copy()
        return still


class _Text(Static):
    """Lines of text; only a change of their number changes the layout."""

    _height = -1

    def show(self, content: Content) -> None:
        height = content.plain.count("\n")
        self.update(content, layout=height != self._height)
        self._height = height


class LiveView(App[None]):
    """Shows the readings until a key, a signal or the last reading.

    Its ``return_code`` is that of the process.
    """

    TITLE = "pychrony"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { overflow: hidden; }
    #clock, #state, #details { height: auto; padding: 0 1; }
    #details { color: $text-muted; }
    Graph { height: 1fr; min-height: 5; margin: 1 1 0 0; }
    #lines { height: auto; max-height: 50%; margin: 0 0 0 1; }
    #legend { display: none; height: auto; max-height: 50%; padding: 0 1;
        color: $text-muted; }
    #keys { dock: bottom; height: 1; padding: 0 1; color: $text-muted; }
    .old { opacity: 60%; }
    .hosts Graph, .hosts #details, .medium Graph, .small Graph { display: none; }
    .low.details Graph, .low.legend Graph { display: none; }
    .medium #lines, .small #lines, .hosts #lines { height: 1fr; max-height: 100%; }
    .low.details #lines, .low.legend #lines { height: 1fr; max-height: 100%; }
    .small #keys { display: none; }
    .small #clock, .small #state { height: 1; }
    .small #details { max-height: 3; }
    .small #legend { height: 1fr; max-height: 100%; }
    .small.legend #lines { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("escape", "close", "Close"),
        Binding("ctrl+c", f"leave({signal.SIGINT.value})", show=False, priority=True),
        Binding("enter", "open", "Open"),
        Binding("p,space", "pause", "Pause"),
        Binding("z", "zoom", "Zoom"),
        Binding("l,question_mark", "legend", "Legend"),
        Binding("t", "theme", "Light/dark"),
    ]

    def __init__(
        self, hosts: Sequence[Host], interval: float, count: int | None = None
    ) -> None:
        super().__init__(driver_class=TerminalDriver)
        self._hosts = hosts
        self._interval = interval
        self._count = count
        self._following = len(hosts)
        # The one whose sources are shown; None for the list of all.
        self._open: str | None = hosts[0].name if len(hosts) == 1 else None
        self._still: Sequence[Host] | None = None  # as it was before the pause
        self._pending = False
        # Not to be looked for: a reading may come when they are gone already.
        self._clock = _Text(id="clock")
        self._state = _Text(_ASKING, id="state")
        self._graph = Graph()
        self._meanings = Static(markup=False)
        self._legend = VerticalScroll(self._meanings, id="legend")
        self._lines = Lines(id="lines")
        self._details = _Text(id="details")
        self._keys = Static(id="keys")

    def compose(self) -> ComposeResult:
        yield self._clock
        yield self._state
        yield self._graph
        yield self._legend
        yield self._lines
        yield self._details
        yield self._keys

    def on_mount(self) -> None:
        if isinstance(self._driver, TerminalDriver):
            end_with_terminal(self._driver, self.action_leave)
        self._lines.focus()
        for host in self._hosts:
            self.run_worker(self._follow(host))

    def on_resize(self, event: Resize) -> None:
        height = event.size.height
        self.screen.set_class(height < _SMALL, "small")
        self.screen.set_class(_SMALL <= height < _MEDIUM, "medium")
        self.screen.set_class(height < _LOW, "low")
        self._meanings.update(_legend(event.size.width - 4))
        self._show()

    async def _follow(self, host: Host) -> None:
        readings = follow(
            host.connection,
            self._interval,
            self._count,
            with_stats=lambda: host.name == self._open and bool(self._lines.chosen),
        )
        async with aclosing(readings):
            async for reading in readings:
                host.take(reading)
                self._changed(host)
        self._following -= 1
        if not self._following:
            failed = any(host.error is not None for host in self._hosts)
            self.exit(return_code=int(failed))

    def _changed(self, host: Host) -> None:
        """Show the reading, unless the view is paused or shows something else."""
        if self._still is not None:
            return
        if self._open is not None:
            if host.name == self._open:
                self._show()
        elif not self._pending:
            self._pending = True
            self.set_timer(_COALESCED, self._show)

    def _show(self) -> None:
        self._pending = False
        if not self.screen_stack:  # the view is ending
            return
        keys: tuple[str, ...]
        hosts = self._hosts if self._still is None else self._still
        self.screen.set_class(self._open is None, "hosts")
        if self._open is None:
            self._show_hosts(hosts)
            keys = _HOSTS_KEYS
        else:
            self._show_host(next(one for one in hosts if one.name == self._open))
            keys = _KEYS if len(hosts) == 1 else (*_KEYS, "Esc list")
        self._keys.update(words(keys, self.size.width - 2, _FIELD_GAP)[0], layout=False)

    def _show_hosts(self, hosts: Sequence[Host]) -> None:
        counts = Counter(host_state(host.last) for host in hosts if host.last)
        fields = [(f"{len(hosts)} clocks", "")]
        for state in WORST_FIRST:
            if counts[state]:
                fields.append((f"{counts[state]} {NAMES[state]}", _COLOURS[state]))
        self._clock.display = True
        self._clock.show(self._fields(fields, "  "))
        self._details.display = False
        for widget in (self._clock, self._lines):
            widget.remove_class("old")
        self._show_state([])
        lasts = [(host.name, host.last) for host in hosts]
        self._lines.show(lambda width: hosts_table(lasts, width))

    def _show_host(self, host: Host) -> None:
        small = self.screen.has_class("small")
        parts: list[tuple[str, str]] = []
        if host.error is not None:
            message = host.error.message
            if small:  # only the cause fits
                message = message.removeprefix(f"{host.name}: ")
            parts.append((f"LOST: {message}", "$text-error"))
        elif host.reading is None:
            parts.append((_ASKING, ""))
        elif host.reading.wrong and not small:
            state = host.reading.verdict.state
            parts.append((f"{NAMES[state]}: {host.reading.wrong}", _COLOURS[state]))
        self._show_state(parts)
        # Of a small screen it would take the line of what is wrong.
        self._clock.display = host.reading is not None and not (small and parts)
        if host.reading is not None:
            self._clock.show(self._fields(self._clock_fields(host, host.reading)))
            reading = host.reading
            self._lines.show(lambda width: sources_table(reading, width))
        self._show_details(host.reading)
        self._graph.show(host.points)
        # They are old then.
        for widget in (self._clock, self._lines):
            widget.set_class(host.error is not None, "old")

    def _show_state(self, parts: Sequence[tuple[str, str]]) -> None:
        if self._still is not None:
            parts = [("PAUSED", "reverse"), *parts]
        self._state.display = bool(parts)
        each_word = [(word, style) for text, style in parts for word in text.split()]
        self._state.show(self._fields(each_word, " "))

    def _show_details(self, reading: Reading | None) -> None:
        index = self._lines.index if reading is not None else None
        self._details.display = index is not None
        self.screen.set_class(index is not None, "details")
        if reading is not None and index is not None:
            fields = [(text, "") for text in source_fields(reading, index)]
            if self.screen.has_class("small"):  # the row has its name
                del fields[0]
            content = self._fields(fields)
            if reading.selection is None:
                note = [(word, "") for word in NO_REASONS.split()]
                content += Content("\n") + self._fields(note, " ")
            self._details.show(content)

    def _clock_fields(self, host: Host, reading: Reading) -> list[tuple[str, str]]:
        tracking = reading.tracking
        unix = host.connection.transport is Transport.UNIX_SOCKET
        where = host.connection.address or host.name
        known = [
            (text, _COLOURS[reading.states.get(_ITEMS.get(name, name), OK)])
            for name, text in _chronyc.clock(tracking).items()
        ]
        others = [
            f"leap {_chronyc.LEAPS.get(tracking.leap_status, 'Invalid')}",
            f"frequency {tracking.frequency:+.3f} ppm",
            f"skew {tracking.skew:.3f} ppm",
            time.strftime("read at %H:%M:%S", time.localtime(reading.read_at)),
        ]
        if self.screen.has_class("small"):
            return known
        place = f"{where} ({'Unix socket' if unix else 'UDP'})"
        return [(place, ""), *known, *((text, "") for text in others)]

    def _fields(
        self, fields: Iterable[tuple[str, str]], gap: str = _FIELD_GAP
    ) -> Content:
        """Return them in lines of the screen's width; none is broken."""
        parts: list[str | tuple[str, str]] = []
        left = 0
        for text, style in fields:
            if left >= len(gap) + len(text):
                parts.append(gap)
                left -= len(gap) + len(text)
            else:
                parts += ["\n"] if parts else []
                left = self.size.width - 2 - len(text)
            parts.append((text, style))
        return Content.assemble(*parts)

    def on_lines_chosen(self) -> None:
        if self._open is not None:
            self._show()

    def action_leave(self, number: int) -> None:
        """End with the exit status for this signal."""
        self.exit(return_code=128 + number)

    def action_open(self) -> None:
        """Show the chosen one of several clocks."""
        if self._open is None and self._lines.index is not None:
            self._switch_to(self._lines.chosen)

    def action_close(self) -> None:
        """Close what is open: the chosen source, then the clock, then the view."""
        if self._open is None:
            self.exit()
        elif self._lines.index is not None:
            self._lines.choose(None)
        elif len(self._hosts) > 1:
            self._switch_to(None, self._open)
        else:
            self.exit()

    def _switch_to(self, host: str | None, chosen: str | None = None) -> None:
        self._open = host
        self._lines.show(lambda _: Table("", ()))
        self._lines.chosen = chosen
        self._show()

    def action_pause(self) -> None:
        """Freeze the screen, not the readings; or resume."""
        paused = self._still is None
        self._still = [host.frozen() for host in self._hosts] if paused else None
        self._show()

    def action_zoom(self) -> None:
        """Fit the scale to the offset, or to its error bound."""
        self._graph.zoom()

    def action_legend(self) -> None:
        """Show or hide the legend."""
        shown = not self._legend.display
        self._legend.display = shown
        self.screen.set_class(shown, "legend")
        (self._legend if shown else self._lines).focus()

    def action_theme(self) -> None:
        """Change between light and dark."""
        dark = self.current_theme.dark
        self.theme = "textual-light" if dark else "textual-dark"
