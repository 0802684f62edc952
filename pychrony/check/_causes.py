"""Why a source is not usable, why a clock follows none, and what to do."""

from __future__ import annotations

from pychrony import Source, SourceMode, SourceState

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._clock import Clock

# At most this many sources are named; chronyc lists all.
_NAMED = 5

# By the name of the state in selectdata.
_NOT_SELECTABLE = {
    "NOT_SYNCHRONIZED": "not synchronised",
    "MISSING_SAMPLES": "with too few measurements yet",
    "UNACCEPTABLE_DISTANCE": "with a root distance above maxdistance",
    "JITTERY": "with jitter above maxjitter",
    "WAITING_FOR_OTHERS": "waiting for measurements of the others",
    "STALE": "with measurements that are too old",
    "ORPHAN": "with the stratum of an orphan",
    "NOT_TRUSTED": "disagreeing with the trusted sources",
    "FALSETICKER": "falseticker",
    "UNACCEPTABLE_STRATUM": "with a stratum outside of minstratum and maxstratum",
    "UNKNOWN": "in no selection yet",
}

_ASK = "'chronyc selectdata' (as root) says why"


def named(names: Iterable[str]) -> str:
    """Return some names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


def usable(clock: Clock) -> str:
    """Say how many of the sources can be followed, and name the others."""
    number = sum(map(Source.is_usable, clock.sources or ()))
    text = f"{number} of {len(clock.resolved)} sources usable"
    others = troubles(clock)
    if others:
        text += f" ({others})"
    if clock.unresolved:
        text += f", {clock.unresolved} not resolved"
    return text


def troubles(clock: Clock) -> str:
    """Name the sources that are not usable, each kind of trouble once."""
    kinds: dict[str, list[str]] = {}
    sources = clock.sources or ()
    for index in clock.resolved:
        if not sources[index].is_usable():
            kinds.setdefault(_trouble(clock, index), []).append(sources[index].address)
    return ", ".join(f"{named(names)} {kind}" for kind, names in kinds.items())


def _trouble(clock: Clock, index: int) -> str:
    """Say in a few words why a source is not usable."""
    source = (clock.sources or ())[index]
    select = clock.select[index].state.name if clock.select else ""
    if clock.is_ignored(index):
        return "noselect"
    if source.state is SourceState.FALSETICKER:
        return "falseticker"
    if not source.is_reachable():
        return _silence(clock, source)
    if source.state is SourceState.JITTERY:
        return "too variable"
    return _NOT_SELECTABLE.get(select, "not selectable")


def _silence(clock: Clock, source: Source) -> str:
    """Say why a source that answered none of the last polls may be silent."""
    if source.mode is SourceMode.REFCLOCK:
        return "dead"
    if _nts_fails(clock, source):
        return "without NTS keys"
    return "offline" if _all_offline(clock) else "unreachable"


def _nts_fails(clock: Clock, source: Source) -> bool:
    auth = clock.auth.get(source.address)
    return (
        auth is not None
        and auth.mode.name == "NTS"
        and not auth.cookies
        and (auth.ke_attempts > 0 or not auth.key_id)
    )


def _all_offline(clock: Clock) -> bool:
    """Whether all unreachable NTP sources are offline: no report says which are."""
    sources = clock.sources or ()
    dead = sum(sources[one].mode is not SourceMode.REFCLOCK for one in clock.dead)
    return clock.activity is not None and 0 < dead <= clock.activity.offline


def none_followed(clock: Clock) -> str:
    """Return why chronyd follows no source, and what to do."""
    if clock.sources is None:
        return "'chronyc sources' there says more"
    if clock.selected:
        return "chronyd follows a source, but has not yet updated the clock"
    cause = _none_usable(clock)
    if clock.tracking.is_local():
        cause = (
            f"chronyd serves its own clock (directive 'local'): {cause}. If that is "
            "meant, use -c synchronised=off -w local=off"
        )
    return cause


def few_usable(clock: Clock) -> str:
    """Return why few sources are usable, and what to do."""
    if clock.sources is None:
        return ""
    if not clock.usable:
        return _none_usable(clock)
    parts = [troubles(clock)] if troubles(clock) else []
    if clock.unresolved:
        parts.append(f"{clock.unresolved} not resolved (check DNS)")
    if not parts:
        return "Add sources"
    advice = ", ".join(parts)
    if "not selectable" in advice:
        advice += f", {_ASK}"
    if clock.configured > 1:
        advice += (
            ". Repair, replace or remove what is not usable (-w usable_sources=1: "
            "accepts one source)"
        )
    return advice


def _none_usable(clock: Clock) -> str:
    sources = clock.sources or ()
    listed = clock.resolved
    activity = clock.activity
    if not listed and not clock.unresolved:
        return "chronyd has no sources. Add a server or pool to its configuration"
    if not listed or (clock.unresolved and len(clock.dead) == len(listed)):
        text = f"{clock.unresolved} sources have no address, as names are not resolved"
        if troubles(clock):
            text += f", {troubles(clock)}"
        text += ". Check DNS on the machine of chronyd"
        if activity and activity.offline:
            text += ", and see 'chronyc online'"
        return text
    if clock.no_majority:
        return (
            f"no majority: {named(clock.falsetickers)} disagree with each other. Add "
            "sources, so that a majority can be right, or remove the wrong one"
        )
    if len(clock.dead) == len(listed):
        return _all_dead(clock)
    usable = [sources[one].address for one in listed if sources[one].is_usable()]
    if usable:
        return (
            f"no source is selected, though {named(usable)} could be (minsources, "
            f"require, or an update that is still to come). {_ASK}"
        )
    return (
        f"no source is selectable: {troubles(clock)}.{_unsure(clock)} chronyd measures "
        "anew after a start, a resume, or when something else set the clock"
    )


def _unsure(clock: Clock) -> str:
    return "" if clock.select else f" {_ASK}."


def _all_dead(clock: Clock) -> str:
    sources = [(clock.sources or ())[one] for one in clock.resolved]
    names = named(one.address for one in sources)
    if all(one.mode is SourceMode.REFCLOCK for one in sources):
        return (
            f"no reference clock delivers samples ({names}). Check the receiver, its "
            "driver or gpsd, and the permissions of the device"
        )
    if _all_offline(clock):
        return (
            f"the sources are offline, by command or configuration ({names}). "
            "'chronyc online' makes chronyd poll them"
        )
    if any(_nts_fails(clock, one) for one in sources):
        return (
            f"the NTS key exchange fails ({names}). Check TCP port 4460, the "
            "certificates, and whether the clock lies within their dates"
        )
    return (
        f"no source is reachable ({names}). Check the network, firewalls (UDP port "
        "123) and the sources' addresses"
    )
