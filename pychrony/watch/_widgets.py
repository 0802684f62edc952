"""The widgets of the live view: a graph, and a table that scrolls."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from pychrony import _chronyc
from pychrony.check._states import NAMES

from ._graph import Point, draw, scale, shown
from ._table import Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from textual.events import Click, Resize

# Wide enough for the longest label of the scale.
_MARGIN = 9


class Graph(Widget):
    """A graph of the newest points, the newest at the right."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "graph--offset",
        "graph--bound",
        "graph--zero",
        "graph--inside",
    }
    DEFAULT_CSS = """
    Graph .graph--offset { color: $foreground; }
    Graph .graph--bound { color: $text-primary; }
    Graph .graph--zero { color: $foreground 40%; }
    Graph .graph--inside { background: $primary-muted; }
    """

    bounded = True

    def __init__(self) -> None:
        super().__init__()
        self._points: tuple[Point, ...] = ()
        self._strips: list[Strip] | None = None

    def show(self, points: Iterable[Point]) -> None:
        """Draw these points."""
        self._points = tuple(points)
        self._redraw()

    def zoom(self) -> None:
        """Fit the scale to the offset, or to its error bound."""
        self.bounded = not self.bounded
        self._redraw()

    def _redraw(self) -> None:
        self._strips = None
        self.refresh()

    def notify_style_update(self) -> None:
        """Draw it in the colours of the new theme."""
        super().notify_style_update()
        self._redraw()

    def on_resize(self, _: Resize) -> None:
        self._redraw()

    def render_line(self, y: int) -> Strip:
        if self._strips is None:
            self._strips = self._drawn()
        if y < len(self._strips):
            return self._strips[y]
        return Strip.blank(self.size.width, self.rich_style)

    def _drawn(self) -> list[Strip]:
        width, height = self.size.width - _MARGIN, self.size.height - 1
        if not self._points or width < 1 or height < 1:
            return []
        points = shown(self._points, width)
        limit = scale(points, bounded=self.bounded)
        labels = {
            height // 2: "0",
            height - 1: _chronyc.seconds(-limit),
            0: _chronyc.seconds(limit, "+"),
        }
        plain = self.rich_style
        band = self.get_component_rich_style("graph--inside", partial=True)
        styles: dict[tuple[str, bool], Style] = {}
        for ink in ("", "offset", "bound", "zero"):
            style = self.get_component_rich_style(f"graph--{ink}") if ink else plain
            styles |= {(ink, False): style, (ink, True): style + band}
        strips = [
            Strip(
                [
                    Segment(f"{labels.get(number, ''):>{_MARGIN - 1}} ", plain),
                    *(Segment(run.text, styles[run.ink, run.inside]) for run in runs),
                ]
            )
            for number, runs in enumerate(draw(points, width, height, limit))
        ]
        ago = f"{points[-1].time - points[0].time:.0f} s ago"
        space = (len(points) + 1) // 2 - len("now")
        if len(ago) < space:
            times = f"{ago:<{space}}now".rjust(self.size.width)
            strips.append(Strip([Segment(times, plain)]))
        return strips


class Lines(ScrollView, can_focus=True):
    """A table with a fixed head, in which a row can be chosen.

    Only visible lines are drawn, so a long list costs little.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "lines--head",
        *(f"lines--{name}" for name in NAMES),
    }
    DEFAULT_CSS = """
    Lines { scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    Lines .lines--head { text-style: bold; }
    Lines .lines--OK { color: $text-success; }
    Lines .lines--WARNING { color: $text-warning; }
    Lines .lines--CRITICAL { color: $text-error; }
    """

    class Chosen(Message):
        """Another row, or none, was chosen."""

    def __init__(self, id: str) -> None:  # noqa: A002, as Textual names it
        super().__init__(id=id)
        self._make: Callable[[int], Table] | None = None
        self._table = Table("", ())
        self._lines: list[tuple[str, Row]] = []
        self.chosen: str | None = None

    def show(self, make: Callable[[int], Table]) -> None:
        """Show the table that this function returns for a width."""
        self._make = make
        # Without the scroll bar's column, whether there is one or not.
        self._table = make(max(1, self.container_size.width - 1))
        rows = self._table.rows
        self._lines = [(line, row) for row in rows for line in row.lines]
        self.virtual_size = Size(self.container_size.width, len(self._lines) + 1)
        self.refresh()

    def on_resize(self, _: Resize) -> None:
        if self._make is not None:
            self.show(self._make)
            self._see_chosen()  # the details of the chosen one take lines from here

    @property
    def index(self) -> int | None:
        """The position of the chosen row, ``None`` if there is none."""
        keys = [row.key for row in self._table.rows]
        return keys.index(self.chosen) if self.chosen in keys else None

    def choose(self, key: str | None) -> None:
        """Choose the row with this key, or none, and scroll to it."""
        self.chosen = key
        self._see_chosen()
        self.refresh()
        self.post_message(self.Chosen())

    def _see_chosen(self) -> None:
        index = self.index
        if index is not None:
            each = len(self._table.rows[index].lines)
            top, seen = index * each, max(1, self.size.height - 1)
            if top < self.scroll_offset.y:
                self.scroll_to(y=top, animate=False)
            elif top + each > self.scroll_offset.y + seen:
                self.scroll_to(y=top + each - seen, animate=False)

    def _move(self, by: int) -> None:
        rows = self._table.rows
        if rows:
            index = self.index
            if index is None:  # begin with the visible rows
                each = len(rows[0].lines)
                index = self.scroll_offset.y // each - (by > 0)
            self.choose(rows[max(0, min(index + by, len(rows) - 1))].key)

    def _page(self) -> int:
        rows = self._table.rows
        each = len(rows[0].lines) if rows else 1
        return max(1, (self.size.height - 1) // each)

    def action_scroll_up(self) -> None:
        self._move(-1)

    def action_scroll_down(self) -> None:
        self._move(1)

    def action_page_up(self) -> None:
        self._move(-self._page())

    def action_page_down(self) -> None:
        self._move(self._page())

    def action_scroll_home(self) -> None:
        self._move(-len(self._table.rows))

    def action_scroll_end(self) -> None:
        self._move(len(self._table.rows) + 1)

    def on_click(self, event: Click) -> None:
        line = self.scroll_offset.y + event.y - 1
        if event.y > 0 and line < len(self._lines):
            self.choose(self._lines[line][1].key)

    def render_line(self, y: int) -> Strip:
        line = self.scroll_offset.y + y - 1
        if y == 0:
            text = self._table.head
            style = self.get_component_rich_style("lines--head")
        elif line < len(self._lines):
            text, row = self._lines[line]
            style = self.get_component_rich_style(f"lines--{NAMES[row.state]}")
            if row.key == self.chosen:
                style += Style(reverse=True)
        else:
            return Strip.blank(self.size.width, self.rich_style)
        width = self.size.width
        return Strip([Segment(text[:width].ljust(width), style)], width)
