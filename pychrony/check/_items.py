"""What is checked of a clock, and where the limits are unless somebody changes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import time

from pychrony import LeapStatus, Source, SourceState, TrackingStatus, _chronyc

from ._range import plain

# So many names are told where there are more.
_TOLD = 5


@dataclass(frozen=True)
class Clock:
    """What was read of a clock; ``sources`` is ``None`` if only ``tracking`` was."""

    tracking: TrackingStatus
    sources: Sequence[Source] | None = None
    read_at: float = field(default_factory=time)

    @property
    def follows(self) -> bool:
        """Whether it is synchronised, so that its figures mean something."""
        return (
            self.tracking.is_synchronized()
            and self.tracking.leap_status is not LeapStatus.UNSYNC
        )

    @property
    def selected(self) -> Source | None:
        """The source that it follows."""
        return next(filter(Source.is_selected, self.sources or ()), None)

    @property
    def usable(self) -> int | None:
        """How many sources it could follow; in local mode it needs none."""
        if self.sources is None or self.tracking.is_local():
            return None
        return sum(source.is_usable() for source in self.sources)

    @property
    def falsetickers(self) -> list[str]:
        """The sources that disagree with the majority."""
        wrong = SourceState.FALSETICKER
        return [one.address for one in self.sources or () if one.state is wrong]


# The same of each clock, or made for it.
Words = str | Callable[[Clock], str]


@dataclass(frozen=True)
class Item:
    """One thing that is checked.

    Attributes:
        name: what it is called on the command line and in every output.
        meaning: what it is, in words.
        value: reads it; ``None`` where a clock has none at the moment.
        advice: why that may be where it is not fine, and what to do.
        unit: ``s``, ``ppm``, ``flag`` (1 or 0), or nothing.
        wrong: what to call it where it is not fine, if the value says nothing.
        signed: whether it can be negative.
        warning: outside of this range the state is WARNING; ``None``: never.
        critical: outside of this range the state is CRITICAL; ``None``: never.
    """

    name: str
    meaning: str
    value: Callable[[Clock], float | None]
    advice: Words
    unit: str = ""
    wrong: str = ""
    signed: bool = False
    warning: Words | None = None
    critical: Words | None = None

    @property
    def label(self) -> str:
        return self.name.replace("_", " ")

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


def _following(
    read: Callable[[Clock], float | None],
) -> Callable[[Clock], float | None]:
    """Read it only of a clock that follows a source: else it means nothing."""
    return lambda clock: read(clock) if clock.follows else None


def _tracking(name: str) -> Callable[[Clock], float | None]:
    return _following(lambda clock: getattr(clock.tracking, name))


def _reach(clock: Clock) -> int | None:
    source = clock.selected
    return None if source is None else source.reachability.bit_count()


def _longest_age(clock: Clock) -> str:
    # Sources are polled each 1024 s at most, by default.
    return plain(max(8 * clock.tracking.update_interval, 1025))


def _more_sources(clock: Clock) -> str:
    advice = "Add sources"
    if clock.usable != len(clock.sources or ()):
        advice += ", or see with 'chronyc sources' what is wrong with the others"
    return advice


def _who(clock: Clock) -> str:
    wrong = clock.falsetickers
    more = f" and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
    return f"Check or remove {', '.join(wrong[:_TOLD])}{more}"


def _why_not(clock: Clock) -> str:
    """Return why chronyd follows no source, and what to do."""
    if clock.sources is None:
        return "'chronyc sources' there says more"
    if clock.selected:
        return "chronyd follows a source, but has not yet updated the clock"
    if not clock.sources:
        return "chronyd has no sources. Add a server or pool to its configuration"
    if not any(map(Source.is_reachable, clock.sources)):
        return (
            "no source is reachable. Check the network, firewalls (UDP port 123) and "
            "the sources' addresses"
        )
    return "no source is selected. 'chronyc selectdata' says why"


ITEMS = (
    Item(
        "synchronised",
        "the clock follows a source, or is meant not to (local mode)",
        lambda clock: clock.follows or clock.tracking.is_local(),
        _why_not,
        unit="flag",
        wrong="not synchronised",
        critical="1:",
    ),
    Item(
        "local",
        "chronyd serves its own clock, which follows nothing",
        lambda clock: clock.tracking.is_local(),
        "chronyd serves its own clock, as it has no source to follow",
        unit="flag",
        wrong="local mode",
        warning="0",
    ),
    Item(
        "offset",
        "how far the clock is behind NTP time",
        _tracking("offset"),
        "Wait while chronyd slews it, or step it with 'chronyc makestep'",
        unit="s",
        signed=True,
        warning="0.05",
        critical="0.2",
    ),
    Item(
        "error_bound",
        "the most that the clock can be wrong",
        _tracking("error_bound"),
        "Use sources that are nearer or better",
        unit="s",
    ),
    Item(
        "root_delay",
        "network delay to the stratum-1 source",
        _tracking("root_delay"),
        "Use sources that are nearer",
        unit="s",
    ),
    Item(
        "root_dispersion",
        "dispersion back to the stratum-1 source",
        _tracking("root_dispersion"),
        "Use better sources, or poll them more often",
        unit="s",
    ),
    Item(
        "stratum",
        "hops to a reference clock",
        _tracking("stratum"),
        "Use sources that are nearer to a reference clock",
        warning="9",
    ),
    Item(
        "age",
        "time since the last update of the clock; its warning is over 8 update "
        "intervals, but at least 1025 s",
        # An update to come counts, too: this machine may have another time.
        _following(lambda clock: abs(clock.read_at - clock.tracking.ref_time)),
        "chronyd gets no measurements that it can use. Check the network and its "
        "sources, and, if it runs elsewhere, the clock of this machine",
        unit="s",
        warning=_longest_age,
    ),
    Item(
        "frequency",
        "how fast the clock would gain uncorrected",
        lambda clock: clock.tracking.frequency,
        "Check the oscillator, or the clock of the virtual machine",
        unit="ppm",
        signed=True,
    ),
    Item(
        "skew",
        "error bound of the frequency",
        _tracking("skew"),
        "Wait while chronyd measures, or use sources with less jitter",
        unit="ppm",
    ),
    Item(
        "usable_sources",
        "sources that chronyd follows or could follow",
        lambda clock: clock.usable,
        _more_sources,
        warning="2:",
        critical="1:",
    ),
    Item(
        "reach",
        "how many of the last 8 polls the selected source answered",
        _reach,
        lambda clock: (
            f"Check the network to {clock.selected and clock.selected.address}"
        ),
        warning="4:",
    ),
    Item(
        "falsetickers",
        "sources that disagree with the majority",
        lambda clock: None if clock.sources is None else len(clock.falsetickers),
        _who,
        warning="0",
    ),
)
