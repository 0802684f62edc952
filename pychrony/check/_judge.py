"""Compares a clock with the limits: findings for its items, a verdict on it."""

from __future__ import annotations

from pychrony import (
    ChronyAddressError,
    ChronyConnectionError,
    ChronyLibraryError,
    ChronyPermissionError,
    ChronyTimeoutError,
)

from ._items import ITEMS, Item, facts
from ._range import Range, parse
from ._states import CRITICAL, OK, UNKNOWN, WARNING, WORST_FIRST

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pychrony import ChronyError

    from ._clock import Clock

_BY_NAME = {item.name: item for item in ITEMS}
_BY_NAME["synchronized"] = _BY_NAME["synchronised"]

_FOLLOWS_OTHER = (
    "chronyd follows another source than the one wanted. See 'chronyc sources'"
)

# The source that the clock should follow: it has names instead of a range.
SOURCE = Item(
    "source",
    "the source that is followed: addresses or reference IDs, with commas",
    lambda clock: None,
    _FOLLOWS_OTHER,
    unit="flag",
    performance=False,
)

# An item that is not mentioned if the other is wrong, too.
_IMPLIED_BY = {
    "local": "synchronised",
    "last_sample": "offset",
    "error_bound": "offset",
}

# Errors that waiting cannot fix.
_FINAL = (ChronyAddressError, ChronyPermissionError, ChronyLibraryError)

# A limit in seconds from here on is probably meant in milliseconds.
_STRANGE = 10.0


class Limits:
    """The limits of each item.

    Attributes:
        wanted: the names that ``source`` may have, by the state for any other.
        doubts: warnings about limits that were given.
    """

    def __init__(self) -> None:
        self._limits: dict[
            tuple[str, int], Range | Callable[[Clock], str | None] | None
        ] = {}
        for item in ITEMS:
            for state, limit in ((WARNING, item.warning), (CRITICAL, item.critical)):
                known = _parsed(item, limit) if isinstance(limit, str) else limit
                self._limits[item.name, state] = known
        self.wanted: dict[int, list[str]] = {}
        self.doubts: list[str] = []

    def change(self, state: int, text: str) -> None:
        """Change a limit: ``ITEM=RANGE``, ``ITEM=off``, ``RANGE`` or ``off``.

        Without an item, a range is that of the offset, and ``off`` switches off all.

        Raises:
            ValueError: it is none of these.
        """
        if text == "off":
            for each in ITEMS:
                self._limits[each.name, state] = None
            self.wanted.pop(state, None)
            return
        name, _, limit = text.rpartition("=")
        if name == SOURCE.name:
            self.wanted.pop(state, None)
            if limit != "off":
                self.wanted[state] = _identities(limit)
            return
        item = _BY_NAME.get(name or "offset")
        if item is None:
            raise ValueError(f"{name!r} is none of {', '.join(_BY_NAME)}, source")
        if limit == "off":
            self._limits[item.name, state] = None
            return
        self._limits[item.name, state] = found = _parsed(item, limit)
        bare = not limit.strip("@~:+-0123456789.")
        short = item.unit == "s" and item.name not in ("age", "future")
        if bare and short and _STRANGE <= found.end < float("inf"):
            self.doubts.append(
                f"-w or -c {item.name}={limit} is in seconds, {limit}ms would be "
                "milliseconds"
            )

    def require_synchronised(self) -> None:
        """Make a clock that follows no source CRITICAL, whatever was switched off."""
        item = _BY_NAME["synchronised"]
        self._limits[item.name, CRITICAL] = _parsed(item, "1:")

    def of(self, item: Item, state: int, clock: Clock) -> Range | None:
        """Return the range outside of which ``item`` is in ``state``."""
        limit = self._limits[item.name, state]
        if callable(limit):
            text = limit(clock)
            return None if text is None else _parsed(item, text)
        return limit


def _parsed(item: Item, text: str) -> Range:
    return parse(text, signed=item.signed, unit=item.unit)


def _identities(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ValueError(
            f"source={text!r} names no source. Give addresses or reference IDs, as "
            "in -c source=192.0.2.1,PPS"
        )
    return names


class Finding:
    """The result for one item.

    Attributes:
        wrong: what is wrong with it; empty if it is fine.
        advice: the likely cause, and what to do.
    """

    __slots__ = ("advice", "critical", "item", "state", "value", "warning", "wrong")

    def __init__(
        self,
        item: Item,
        value: float,
        *,
        warning: Range | None = None,
        critical: Range | None = None,
        state: int = OK,
        wrong: str = "",
        advice: str = "",
    ) -> None:
        self.item = item
        self.value = value
        self.warning = warning
        self.critical = critical
        self.state = state
        self.wrong = wrong
        self.advice = advice

    @property
    def reason(self) -> str:
        return f"{self.wrong}: {self.advice}" if self.wrong else ""


class Verdict:
    """The result for one clock.

    Attributes:
        address: as given; empty for the chronyd of this machine.
        state: the worst of all findings.
        findings: of every item that the clock has, in the order of ``ITEMS``.
        facts: the main figures, for the summary.
        clock: what was read; ``None`` if there is an ``error`` instead.
    """

    def __init__(
        self,
        address: str,
        state: int,
        *,
        findings: Sequence[Finding] = (),
        facts: Sequence[str] = (),
        clock: Clock | None = None,
        error: ChronyError | None = None,
    ) -> None:
        self.address = address
        self.state = state
        self.findings = findings
        self.facts = facts
        self.clock = clock
        self.error = error

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
        reasons: list[str] = []
        said: set[str] = set()
        for one in self.wrong:
            # Several items may have the same cause.
            reasons.append(one.wrong if one.advice in said else one.reason)
            said.add(one.advice)
        return self._then_facts(". ".join(reasons))

    @property
    def headline(self) -> str:
        """What is wrong; then the facts."""
        return self._then_facts(", ".join(one.wrong for one in self.wrong))

    @property
    def wrong(self) -> list[Finding]:
        """The findings outside of limits, the worst first, without implied ones."""
        found = {one.item.name: one for one in self.worst_first if one.wrong}
        hidden = {name for name, other in _IMPLIED_BY.items() if other in found}
        bound, offset = found.get("error_bound"), found.get("offset")
        # The bound includes the offset, so it says more only if it is worse.
        if bound and offset and worst((bound, offset)) != offset.state:
            hidden.discard("error_bound")
        return [one for name, one in found.items() if name not in hidden]

    def _then_facts(self, wrong: str) -> str:
        if self.error is not None:
            return self.error.message
        return ". ".join(filter(None, [wrong, ", ".join(self.facts)]))

    def has_wrong(self, item: str) -> bool:
        """Whether an item is outside of its limits."""
        return any(one.wrong for one in self.findings if one.item.name == item)

    @property
    def may_settle(self) -> bool:
        """Whether the state may become better by itself."""
        if self.clock is None:
            return not isinstance(self.error, _FINAL)
        return not self.clock.follows or self.state == CRITICAL


def worst(judged: Iterable[Finding | Verdict]) -> int:
    return min((one.state for one in judged), key=WORST_FIRST.index)


def judge(address: str, clock: Clock, limits: Limits) -> Verdict:
    """Compare a clock with the limits."""
    findings = [
        _find(item, value, clock, limits)
        for item in ITEMS
        if (value := item.value(clock)) is not None
    ]
    if limits.wanted and clock.follows:
        findings.append(_wanted(clock, limits.wanted))
    wrong = {one.item.name for one in findings if one.wrong}
    if clock.tracking.is_local() and "synchronised" in wrong:
        wrong.add("local")
    if "offset" in wrong:
        wrong.discard("error_bound")  # the offset is most of it
    said = [text for name, text in facts(clock).items() if name not in wrong]
    return Verdict(
        address,
        worst(findings),
        findings=findings,
        facts=[*said, *limits.doubts],
        clock=clock,
    )


def failure(address: str, error: ChronyError, timeout_state: int) -> Verdict:
    """Return the verdict on a clock that cannot be read."""
    state = CRITICAL if isinstance(error, ChronyConnectionError) else UNKNOWN
    if isinstance(error, ChronyTimeoutError):
        state = timeout_state
    elif isinstance(error, ChronyAddressError):
        state = UNKNOWN
    return Verdict(address, state, error=error)


def _find(item: Item, value: float, clock: Clock, limits: Limits) -> Finding:
    warning, critical = (limits.of(item, state, clock) for state in (WARNING, CRITICAL))
    found = Finding(item, value, warning=warning, critical=critical)
    for state, limit in ((CRITICAL, critical), (WARNING, warning)):
        if limit is not None and limit.alerts(value):
            found.state = state
            found.wrong = item.wrong(clock) if callable(item.wrong) else item.wrong
            found.wrong = found.wrong or (
                f"{item.label} {item.show(value)} ({_where(item, value, limit)})"
            )
            found.advice = item.advice(clock) if callable(item.advice) else item.advice
            break
    return found


def _where(item: Item, value: float, limit: Range) -> str:
    """Return on which side of the limit the value is."""
    if limit.inside:
        return f"in {limit.shown(item.show_limit)}"
    if value > limit.end:
        return f"more than {item.show(limit.end)}"
    return f"less than {item.show(limit.start)}"


def _wanted(clock: Clock, wanted: Mapping[int, list[str]]) -> Finding:
    """Return the finding whether the clock follows one of the wanted sources."""
    tracking = clock.tracking
    follows = {tracking.reference_id_name.lower(), tracking.reference_ip.lower()}
    for state in (CRITICAL, WARNING):
        names = wanted.get(state)
        if names and follows.isdisjoint(map(_same_address, names)):
            wrong = f"source {tracking.reference_id_name} (not {', '.join(names)})"
            return Finding(SOURCE, 0, state=state, wrong=wrong, advice=_FOLLOWS_OTHER)
    return Finding(SOURCE, 1)


def _same_address(name: str) -> str:
    """Return an address as chronyd writes it: IPv6 has several spellings."""
    if ":" in name:
        from ipaddress import ip_address

        try:
            return str(ip_address(name))
        except ValueError:
            pass
    return name.lower()
