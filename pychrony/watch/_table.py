"""Tables of sources and clocks, with as many columns as fit the width."""

from __future__ import annotations

from itertools import zip_longest
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from pychrony import ChronyError, SelectOption, _chronyc
from pychrony.check._causes import REASONS
from pychrony.check._states import CRITICAL, NAMES, OK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pychrony import SelectData, SourceStats

    from ._follow import Reading

_GAP = 2

NO_REASONS = (
    "No column Selection: chronyd permits selectdata to root and its own user only, "
    "over its Unix socket."
)


class Row(NamedTuple):
    """One entry of a table.

    Attributes:
        key: identifies this entry in each reading.
        lines: its text; all entries have the same number of lines.
        state: the state of the check.
    """

    key: str
    lines: Sequence[str]
    state: int


class Table(NamedTuple):
    """Rows under a line with the names of the columns."""

    head: str
    rows: Sequence[Row]


class _Column(NamedTuple):
    head: str
    cells: Sequence[str]
    right: bool = False
    least: float = inf
    """The width that it may be cut to, if it is the last column."""

    @property
    def width(self) -> int:
        return max(map(len, (self.head, *self.cells)))


def _lines(columns: Sequence[_Column]) -> list[str]:
    """Return the line of the heads, and then those of the cells."""
    aligned = [
        [
            text.rjust(column.width) if column.right else text.ljust(column.width)
            for text in (column.head, *column.cells)
        ]
        for column in columns
    ]
    return [(" " * _GAP).join(cells).rstrip() for cells in zip(*aligned)]


def _fitting(
    choices: Sequence[Sequence[_Column]], width: int
) -> tuple[str, list[Sequence[str]]]:
    """Return head and rows with the first choice of columns that fits the width.

    If none does, the first column of the last choice gets its own line.
    """
    for *others, last in choices:
        left = width - sum(column.width + _GAP for column in others)
        if min(last.width, last.least) <= left:
            cut = last._replace(cells=[_cut(text, left) for text in last.cells])
            head, *lines = _lines([*others, cut])
            return head, [(line,) for line in lines]
    names, *others = choices[-1]
    head, *lines = _lines(others)
    head = words(f"{names.head}, {' '.join(head.split())}".split(), width)[0]
    return head, list(zip(names.cells, lines))


def _cut(text: str, width: int) -> str:
    """Return the text, shortened at a word to the width."""
    if len(text) <= width:
        return text
    return f"{words(text.split(), width - 2)[0]} \N{HORIZONTAL ELLIPSIS}"


def sources_table(reading: Reading, width: int) -> Table:
    """Return the table of the sources as in chronyc, with the selection."""
    sources = reading.sources
    if not sources:
        return Table("No sources", ())
    cells = list(zip(*map(_chronyc.source_cells, sources)))
    offsets = [_chronyc.seconds(source.latest_meas, "+") for source in sources]
    glyphs = _Column("MS", cells[0])
    name = _Column("Name/IP address", cells[1])
    stratum = _Column("Stratum", cells[2], right=True)
    poll = _Column("Poll", cells[3], right=True)
    reach = _Column("Reach", cells[4], right=True)
    last_rx = _Column("LastRx", cells[5], right=True)
    sample = _Column("Last sample", cells[6])
    offset = _Column("Offset", offsets, right=True)
    chronyc = (glyphs, name, stratum, poll, reach, last_rx, sample)
    choices: list[Sequence[_Column]] = [
        chronyc,
        (glyphs, name, reach, last_rx, sample),
        (glyphs, name, reach, last_rx, offset),
        (glyphs, name, offset),
        (name._replace(head="Name"), glyphs, reach, last_rx, offset),
    ]
    if reading.selection is not None:
        reasons = [
            REASONS.get(one.state, "") if one else ""
            for _, one in zip_longest(sources, reading.selection)
        ]
        choices.insert(0, (*chronyc, _Column("Selection", reasons)))
    head, lines = _fitting(choices, width)
    rows: list[Row] = []
    times: dict[str, int] = {}
    for index, (source, text) in enumerate(zip(sources, lines)):
        # Two reference clocks may have the same ID.
        times[source.address] = times.get(source.address, 0) + 1
        key = f"{source.address} {times[source.address]}"
        rows.append(Row(key, text, reading.source_state(index)))
    return Table(head, rows)


def hosts_table(
    hosts: Sequence[tuple[str, Reading | ChronyError | None]], width: int
) -> Table:
    """Return the table of several clocks, the worst first."""
    ranked = sorted(hosts, key=_rank)
    cells = list(zip(*(_host_cells(*host) for host in ranked)))
    name = _Column("Clock", [address for address, _ in ranked])
    state = _Column("State", cells[0])
    offset = _Column("Offset", cells[1], right=True)
    bound = _Column("Error bound", cells[2], right=True)
    stratum = _Column("Stratum", cells[3], right=True)
    usable = _Column("Usable", cells[4], right=True)
    problem = _Column("Problem, or source", cells[5], least=24)
    choices: list[Sequence[_Column]] = [
        (name, state, offset, bound, stratum, usable, problem),
        (name, state, offset, bound, problem),
        (name, state, offset, problem),
        (name, state, offset, bound),
        (name, state, offset),
        (name, state, offset, bound),
    ]
    head, lines = _fitting(choices, width)
    rows = [
        Row(address, text, host_state(reading))
        for (address, reading), text in zip(ranked, lines)
    ]
    return Table(head, rows)


def host_state(reading: Reading | ChronyError | None) -> int:
    """Return the state of a clock: that of the check, CRITICAL if it is lost."""
    if reading is None:
        return OK
    return CRITICAL if isinstance(reading, ChronyError) else reading.verdict.state


def _rank(host: tuple[str, Reading | ChronyError | None]) -> tuple[int, float, str]:
    address, reading = host
    size = float("inf")
    if reading is None:
        size = 0.0
    elif not isinstance(reading, ChronyError):
        size = abs(reading.tracking.offset)
    return -host_state(reading), -size, address


def _host_cells(address: str, reading: Reading | ChronyError | None) -> tuple[str, ...]:
    if reading is None:
        return ("...", "", "", "", "", "")
    if isinstance(reading, ChronyError):
        message = reading.message.removeprefix(f"{address}: ")
        return ("LOST", "", "", "", "", message)
    tracking, sources = reading.tracking, reading.sources
    bound = tracking.error_bound
    usable = sum(source.is_usable() for source in sources)
    return (
        NAMES[reading.verdict.state],
        _chronyc.seconds(tracking.offset, "+"),
        "none" if bound is None else _chronyc.seconds(bound),
        str(tracking.stratum),
        f"{usable}/{len(sources)}",
        reading.wrong or _chronyc.clock(tracking)["source"],
    )


def source_fields(reading: Reading, index: int) -> list[str]:
    """Return the details of one source: its selection and statistics."""
    source = reading.sources[index]
    fields = [source.address]
    if reading.selection:
        fields += _selection_fields(reading.selection[index])
    if reading.stats:
        fields += _stats_fields(reading.stats[index])
    return fields


def _stats_fields(stats: SourceStats) -> list[str]:
    return [
        f"samples {stats.samples}",
        f"runs {stats.runs}",
        f"span {stats.span} s",
        f"frequency {stats.resid_freq:+.3f} ppm",
        f"skew {stats.skew:.3f} ppm",
        f"offset {_chronyc.seconds(stats.offset, '+')}",
        f"std dev {_chronyc.seconds(stats.std_dev)}",
    ]


def _selection_fields(selection: SelectData) -> list[str]:
    options = selection.effective_options
    names = [str(one.name).lower() for one in SelectOption if one in options]
    return [
        f"selection: {REASONS.get(selection.state, 'unknown')}",
        f"score {selection.score:.1f}",
        f"from {_chronyc.seconds(selection.low_limit, '+')}",
        f"to {_chronyc.seconds(selection.high_limit, '+')}",
        f"options {' '.join(names) or 'none'}",
    ]


def words(texts: Iterable[str], width: int, gap: str = " ") -> list[str]:
    """Return the unbroken texts in lines that fit the width."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + len(gap) + len(text) <= width:
            lines[-1] += gap + text
        else:
            lines.append(text)
    return lines or [""]
