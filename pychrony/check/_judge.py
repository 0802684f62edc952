"""What the limits make of a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pychrony import (
    ChronyAddressError,
    ChronyConnectionError,
    ChronyError,
    ChronyLibraryError,
    ChronyPermissionError,
    ChronyTimeoutError,
    LeapStatus,
    _chronyc,
)

from ._items import ITEMS, Clock, Item
from ._range import Range, parse

OK, WARNING, CRITICAL, UNKNOWN = range(4)
NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

# A clock that is known to be wrong is worse than one of which nothing is known.
WORST_FIRST = (CRITICAL, UNKNOWN, WARNING, OK)

_BY_NAME = {item.name: item for item in ITEMS}

# No time mends these.
_FINAL = (ChronyAddressError, ChronyPermissionError, ChronyLibraryError)


class Limits:
    """Where each item is WARNING and CRITICAL."""

    def __init__(self) -> None:
        self._limits: dict[tuple[str, int], Range | Callable[[Clock], str] | None] = {}
        for item in ITEMS:
            for state, limit in ((WARNING, item.warning), (CRITICAL, item.critical)):
                known = _parsed(item, limit) if isinstance(limit, str) else limit
                self._limits[item.name, state] = known

    def change(self, state: int, text: str) -> None:
        """Change a limit: ``ITEM=RANGE``, ``ITEM=off``, ``RANGE`` or ``off``.

        Alone, a range is that of the offset, and ``off`` switches all off.

        Raises:
            ValueError: it is nothing of that.
        """
        if text == "off":
            for each in ITEMS:
                self._limits[each.name, state] = None
            return
        name, _, limit = text.rpartition("=")
        item = _BY_NAME.get(name or "offset")
        if item is None:
            raise ValueError(f"{name!r} is none of {', '.join(_BY_NAME)}")
        self._limits[item.name, state] = (
            None if limit == "off" else _parsed(item, limit)
        )

    def of(self, item: Item, state: int, clock: Clock) -> Range | None:
        """Return the range outside of which ``item`` is in ``state``."""
        limit = self._limits[item.name, state]
        return _parsed(item, limit(clock)) if callable(limit) else limit


def _parsed(item: Item, text: str) -> Range:
    return parse(text, signed=item.signed)


@dataclass(frozen=True)
class Finding:
    """What the limits make of one item.

    Attributes:
        wrong: what is wrong with it, in words; empty if it is fine.
        advice: why that may be, and what to do.
    """

    item: Item
    value: float
    warning: Range | None
    critical: Range | None
    state: int = OK
    wrong: str = ""
    advice: str = ""

    @property
    def reason(self) -> str:
        return f"{self.wrong}: {self.advice}" if self.wrong else ""


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one clock.

    Attributes:
        address: as given; empty for the chronyd of this machine.
        state: the worst of all findings.
        findings: of every item that the clock has, in the order of ``ITEMS``.
        facts: what else matters to whoever asks.
        clock: what was read; ``None`` if ``error`` says why it was not.
    """

    address: str
    state: int
    findings: Sequence[Finding] = ()
    facts: Sequence[str] = ()
    clock: Clock | None = None
    error: ChronyError | None = None

    @property
    def source(self) -> str | None:
        """What the clock follows."""
        if self.clock is None or not self.clock.follows:
            return None
        return self.clock.tracking.reference_id_name

    @property
    def worst_first(self) -> list[Finding]:
        return sorted(self.findings, key=lambda one: WORST_FIRST.index(one.state))

    @property
    def summary(self) -> str:
        """What is wrong, why, and what to do; then the facts."""
        return self._then_facts("; ".join(one.reason for one in self._wrong))

    @property
    def headline(self) -> str:
        """What is wrong; then the facts."""
        return self._then_facts(", ".join(one.wrong for one in self._wrong))

    @property
    def _wrong(self) -> list[Finding]:
        return [one for one in self.worst_first if one.wrong]

    def _then_facts(self, wrong: str) -> str:
        if self.error is not None:
            return self.error.message.replace("\n", " ")
        return "; ".join(filter(None, [wrong, ", ".join(self.facts)]))

    @property
    def may_settle(self) -> bool:
        """Whether waiting could make it better: nothing is wrong with the question."""
        if self.clock is None:
            return not isinstance(self.error, _FINAL)
        return not self.clock.follows or self.state == CRITICAL


def worst(judged: Iterable[Finding | Verdict]) -> int:
    return min((one.state for one in judged), key=WORST_FIRST.index)


def judge(address: str, clock: Clock, limits: Limits) -> Verdict:
    """Return what the limits make of a clock."""
    findings = [
        _find(item, value, clock, limits)
        for item in ITEMS
        if (value := item.value(clock)) is not None
    ]
    wrong = {one.item.name for one in findings if one.wrong}
    facts = [text for name, text in _facts(clock).items() if name not in wrong]
    return Verdict(address, worst(findings), findings, facts, clock)


def failure(address: str, error: ChronyError, timeout_state: int) -> Verdict:
    """Return what is to be said of a clock that cannot be read."""
    state = CRITICAL if isinstance(error, ChronyConnectionError) else UNKNOWN
    if isinstance(error, ChronyTimeoutError):
        state = timeout_state
    elif isinstance(error, ChronyAddressError):
        state = UNKNOWN
    return Verdict(address, state, error=error)


def _find(item: Item, value: float, clock: Clock, limits: Limits) -> Finding:
    warning, critical = (limits.of(item, state, clock) for state in (WARNING, CRITICAL))
    for state, limit in ((CRITICAL, critical), (WARNING, warning)):
        if limit is not None and limit.alerts(value):
            wrong = item.wrong or (
                f"{item.label} {item.show(value)} ({_where(item, value, limit)})"
            )
            advice = item.advice(clock) if callable(item.advice) else item.advice
            return Finding(item, value, warning, critical, state, wrong, advice)
    return Finding(item, value, warning, critical)


def _where(item: Item, value: float, limit: Range) -> str:
    """Return on which side of the limit the value is."""
    if limit.inside:
        return f"in {limit}"
    if value > limit.end:
        return f"more than {item.show(limit.end)}"
    return f"less than {item.show(limit.start)}"


def _facts(clock: Clock) -> dict[str, str]:
    """Return what to tell of a clock in any case, by the item that it is of."""
    tracking = clock.tracking
    facts = _chronyc.clock(tracking) if clock.follows else {}
    if tracking.is_local():
        facts["local"] = "local mode"
    if clock.sources is not None:
        facts["usable_sources"] = _chronyc.usable(clock.sources)
    if tracking.is_leap_pending():
        what = "inserted" if tracking.leap_status is LeapStatus.INSERT else "deleted"
        facts["leap"] = f"a leap second will be {what} at the end of the day (UTC)"
    return facts
