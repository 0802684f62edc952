"""What is checked of a clock: the one table of limits.

docs/check.rst and docs/prometheus/rules.yml repeat limits of this table, and a
test holds them together.
"""

from __future__ import annotations

from pychrony import _chronyc

from . import _causes
from ._range import plain

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from ._clock import Clock

    # The same for every clock, or a function of the clock.
    Words: TypeAlias = str | Callable[[Clock], str]
    Limit: TypeAlias = str | Callable[[Clock], str | None] | None

# The fastest slew of chronyd by default (maxslewrate) [s/s].
_SLEW_RATE = 0.083333

# This number of polls may be missed before the last update counts as old.
MISSED_POLLS = 4
# The least limit [s]: reference clocks are polled several times a second.
LEAST_AGE = 64.0
# The longest interval by default (maxpoll 10) [s], where the poll is not known.
_LONGEST_POLL = 1024.0


class Item:
    """One thing that is checked.

    Attributes:
        name: its name on the command line and in every output.
        meaning: a description.
        value: reads it; ``None`` if the clock has none now.
        advice: why it may be outside of its limits, and what to do.
        unit: ``s``, ``ppm``, ``flag`` (1 or 0), or empty.
        wrong: the text outside of the limits, instead of the value.
        signed: whether it can be negative.
        warning: outside of this range the state is WARNING; ``None``: never.
        critical: outside of this range the state is CRITICAL; ``None``: never.
        reason: why it has these limits.
        performance: whether it is in the performance data.
    """

    def __init__(
        self,
        name: str,
        meaning: str,
        value: Callable[[Clock], float | None],
        advice: Words,
        *,
        unit: str = "",
        wrong: Words = "",
        signed: bool = False,
        warning: Limit = None,
        critical: Limit = None,
        reason: str = "",
        performance: bool = True,
    ) -> None:
        self.name = name
        self.label = name.replace("_", " ")
        self.meaning = meaning
        self.value = value
        self.advice = advice
        self.unit = unit
        self.wrong = wrong
        self.signed = signed
        self.warning = warning
        self.critical = critical
        self.reason = reason
        self.performance = performance

    def show(self, value: float) -> str:
        """Return the value for a person."""
        if self.unit == "flag":
            return "yes" if value else "no"
        sign = "+" if self.signed else ""
        if self.unit == "s":
            return _chronyc.seconds(value, sign)
        if self.unit == "ppm":
            return f"{value:{sign}.3f}ppm"
        return plain(value)

    def show_limit(self, value: float) -> str:
        """Return a limit in the unit of the value."""
        if self.unit == "flag":
            return plain(value)
        return "0" if value == 0 else self.show(value).removeprefix("+")


def _following(
    read: Callable[[Clock], float | None],
) -> Callable[[Clock], float | None]:
    """Return a reader that reads only a clock that follows a source."""
    return lambda clock: read(clock) if clock.follows else None


def _tracking(name: str) -> Callable[[Clock], float | None]:
    return _following(lambda clock: getattr(clock.tracking, name))


def _reach(clock: Clock) -> int | None:
    source = clock.selected
    return None if source is None else source.reachability.bit_count()


def _least_reach(clock: Clock) -> str | None:
    """No limit while a new source has missed no poll since its first answer."""
    source = clock.selected
    answered = source.reachability if source else 0
    return None if answered & (answered + 1) == 0 and answered < 255 else "4:"


def _longest_age(clock: Clock) -> str:
    interval = clock.poll_interval
    if interval is None:
        # Of many clocks, only tracking is read. After the burst at the start, the
        # next update may come much later than the last interval.
        usual = 8 * clock.tracking.update_interval
        return plain(max(usual, MISSED_POLLS * _LONGEST_POLL))
    return plain(max(MISSED_POLLS * interval, LEAST_AGE))


def _why_old(clock: Clock) -> str:
    source = clock.selected
    if source and source.last_sample_ago < clock.age - 2 * (clock.poll_interval or 0):
        return (
            f"the last sample is only {source.last_sample_ago}s old, so either the "
            "clock was set by something other than chronyd, or chronyd rejects the "
            "samples, or the clock of the machine that runs the check is ahead"
        )
    return (
        "chronyd gets no measurements that it can use. Check the network and its "
        "sources, and, if it runs elsewhere, the clock of this machine"
    )


def _how_to_correct(clock: Clock) -> str:
    offset = abs(clock.tracking.offset)
    if offset < 1:
        return "Wait while chronyd slews it, or step it with 'chronyc makestep'"
    slewing = _chronyc.seconds(offset / _SLEW_RATE)
    return (
        f"slewing this takes {slewing} or more. Step it with 'chronyc makestep', and "
        "see the directive makestep for the next start"
    )


def _few_sources(clock: Clock) -> str | None:
    # A single source may be intended; one usable source of several is not.
    return "2:" if clock.configured > 1 else "1:"


def _who(clock: Clock) -> str:
    if clock.no_majority:
        return _causes.few_usable(clock)
    return f"Check or remove {_causes.named(clock.falsetickers)}"


def _dead(clock: Clock) -> str:
    sources = clock.sources or ()
    return (
        f"Check or remove {_causes.named(sources[one].address for one in clock.dead)}"
    )


def _far_from_a_clock(clock: Clock) -> str:
    if clock.tracking.stratum > 9:
        return (
            "a server upstream is probably not synchronised itself (directive 'local', "
            "by default stratum 10). Check it, or use other sources"
        )
    return "Use sources that are nearer to a reference clock"


def _why_uncertain(clock: Clock) -> str:
    tracking = clock.tracking
    parts = {
        "the offset": abs(tracking.offset),
        "the root dispersion": tracking.root_dispersion,
        "the root delay": tracking.root_delay / 2,
    }
    most = max(parts, key=lambda name: parts[name])
    return (
        f"{most} is most of it. Wait for more samples, or use nearer or better sources"
    )


ITEMS = (
    Item(
        "synchronised",
        "whether the clock follows a source, as chronyc waitsync sees it",
        lambda clock: clock.follows,
        _causes.none_followed,
        unit="flag",
        wrong=lambda clock: (
            "not synchronised, local mode"
            if clock.tracking.is_local()
            else "not synchronised"
        ),
        critical="1:",
        reason="nothing bounds the error of a clock that follows no source",
    ),
    Item(
        "local",
        "whether chronyd serves its own clock, without a source",
        lambda clock: clock.tracking.is_local(),
        "chronyd serves its own clock. If that is meant, use -w local=off",
        unit="flag",
        wrong="local mode",
        warning="0",
        reason="its clients believe that it is synchronised",
    ),
    Item(
        "offset",
        "how far the clock is behind NTP time",
        _tracking("offset"),
        _how_to_correct,
        unit="s",
        signed=True,
        warning="0.05",
        critical="0.2",
        reason="normally it is far below",
    ),
    Item(
        "error_bound",
        "the most that the clock can be wrong",
        _tracking("error_bound"),
        _why_uncertain,
        unit="s",
        warning="0.1",
        critical="0.5",
        reason="servers on another continent give 0.07 s",
    ),
    Item(
        "last_sample",
        "offset of the last sample of the selected source beyond its own error bound",
        lambda clock: clock.contradiction,
        "the selected source disagrees with the clock. Something other than chronyd "
        "set the clock, or the source is wrong",
        unit="s",
        warning="0.2",
        reason="the critical limit of the offset, which may grow to this",
        performance=False,
    ),
    Item(
        "root_delay",
        "network delay to the stratum-1 source",
        _tracking("root_delay"),
        "Use sources that are nearer",
        unit="s",
        reason="half of it is in the error bound",
    ),
    Item(
        "root_dispersion",
        "dispersion back to the stratum-1 source",
        _tracking("root_dispersion"),
        "Use better sources, or poll them more often",
        unit="s",
        reason="it is in the error bound",
    ),
    Item(
        "stratum",
        "hops to a reference clock",
        _tracking("stratum"),
        _far_from_a_clock,
        warning="9",
        reason="servers in local mode have stratum 10 by default, their clients more",
    ),
    Item(
        "upstream_local",
        "whether the selected server serves its own clock (Unix socket only)",
        lambda clock: clock.upstream_is_local,
        lambda clock: (
            f"{clock.selected and clock.selected.address} is in local mode. Check its "
            "sources, or use another server, or accept it with -w upstream_local=off"
        ),
        unit="flag",
        wrong="the server followed is not synchronised",
        warning="0",
        reason="that server is not synchronised",
        performance=False,
    ),
    Item(
        "leap",
        "whether a leap second is pending at the end of the day",
        _following(lambda clock: clock.tracking.is_leap_pending()),
        "Check that all sources and programs here are ready for it",
        unit="flag",
        wrong=lambda clock: _leap(clock) or "no leap second is pending",
        reason="it is not a fault; -w leap=0 makes it a warning",
        performance=False,
    ),
    Item(
        "age",
        "time since the last update of the clock",
        _following(lambda clock: max(0.0, clock.age)),
        _why_old,
        unit="s",
        warning=_longest_age,
        reason="the limit is 4 polls of the selected source, at least 64 s; for many "
        "clocks, 8 update intervals, at least 4096 s",
    ),
    Item(
        "future",
        "how far the last update is in the future, by the clock of this machine",
        _following(lambda clock: max(0.0, -clock.age)),
        "something other than chronyd set the clock of the machine that runs the "
        "check back, or that clock is behind chronyd's",
        unit="s",
        wrong=lambda clock: f"last update {_chronyc.seconds(-clock.age)} in the future",
        warning="2",
        reason="up to 1 s comes from chronyd itself",
        performance=False,
    ),
    Item(
        "frequency",
        "how fast the clock would gain uncorrected",
        lambda clock: clock.tracking.frequency,
        "Check the oscillator, or the clock of the virtual machine",
        unit="ppm",
        signed=True,
        reason="it is corrected",
    ),
    Item(
        "skew",
        "error bound of the frequency; meaningless with few samples",
        _tracking("skew"),
        "Wait while chronyd measures, or use sources with less jitter",
        unit="ppm",
        reason="the error bound includes it",
    ),
    Item(
        "usable_sources",
        "sources that chronyd follows or could follow",
        lambda clock: clock.usable,
        _causes.few_usable,
        warning=_few_sources,
        critical="1:",
        reason="2 if two or more are configured, else 1",
    ),
    Item(
        "reach",
        "how many of the last 8 polls the selected source answered",
        _reach,
        lambda clock: (
            f"Check the network to {clock.selected and clock.selected.address}"
        ),
        warning=_least_reach,
        reason="some packets are always lost; no limit for a new source",
    ),
    Item(
        "falsetickers",
        "sources that disagree with the majority",
        lambda clock: None if clock.sources is None else len(clock.falsetickers),
        _who,
        warning="0",
        reason="one of them, or the majority, is wrong",
    ),
    Item(
        "dead_sources",
        "sources that answered none of the last 8 polls",
        lambda clock: None if clock.sources is None else len(clock.dead),
        _dead,
        reason="they are named; -w dead_sources=0 makes them a warning",
    ),
)


def _leap(clock: Clock) -> str:
    if not clock.tracking.is_leap_pending():
        return ""
    inserted = clock.tracking.leap_status.name == "INSERT"
    what = "inserted" if inserted else "deleted"
    return f"a leap second will be {what} at the end of the day (UTC)"


def facts(clock: Clock) -> dict[str, str]:
    """Return what the summary always says, by the item that it belongs to."""
    found = _chronyc.clock(clock.tracking) if clock.follows else {}
    if clock.tracking.is_local():
        found["local"] = "local mode"
    if clock.sources is not None:
        found["usable_sources"] = _causes.usable(clock)
    if leap := _leap(clock):
        found["leap"] = leap
    return found
