"""Why a source is not usable, why a clock follows none, and what to do."""

from __future__ import annotations

from pychrony import (
    AuthMode,
    LeapStatus,
    SelectState,
    Source,
    SourceMode,
    SourceState,
)

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._clock import Clock

# At most this many sources are named; chronyc lists all.
_NAMED = 5

_NEW = "with too few measurements"
_NOSELECT = "noselect"
_UNKNOWN = "not selectable"

# Why a source cannot be selected: words that follow its name, and are a column of
# the live view.
_NOT_SELECTABLE = {
    SelectState.IGNORED: _NOSELECT,
    SelectState.NOT_SYNCHRONIZED: "not synchronised",
    SelectState.MISSING_SAMPLES: _NEW,
    SelectState.UNACCEPTABLE_DISTANCE: "above maxdistance",
    SelectState.JITTERY: "above maxjitter",
    SelectState.WAITING_FOR_OTHERS: "waiting for new sources",
    SelectState.STALE: "without recent measurements",
    SelectState.ORPHAN: "with an orphan stratum",
    SelectState.NOT_TRUSTED: "unlike the trusted sources",
    SelectState.FALSETICKER: "falseticker",
    SelectState.UNACCEPTABLE_STRATUM: "with a stratum out of range",
    SelectState.UNKNOWN: "in no selection yet",
}

# The same for every state.
REASONS = _NOT_SELECTABLE | {
    SelectState.MISSING_SELECTABLE_SOURCES: "waiting for more sources",
    SelectState.NOT_PREFERRED: "not preferred",
    SelectState.WAITING_FOR_UPDATE: "waiting for a measurement",
    SelectState.LARGE_DISTANCE: "too distant to combine",
    SelectState.OUTLIER: "too different to combine",
    SelectState.COMBINED: "combined",
    SelectState.BEST: "selected",
}

# Why a source replied to none of the last polls, as far as that is known. If all
# sources have the same cause: the text, and what to do.
_SILENT = {
    "dead": (
        "no reference clock delivers samples",
        "Check the receiver, its driver or gpsd, and the permissions of the device",
    ),
    "without NTS keys": (
        "the NTS key exchange fails",
        (
            "Check TCP port 4460, the certificates, and whether the clock lies within "
            "their dates"
        ),
    ),
    "not synchronised": (
        "the sources answer, but are not synchronised themselves",
        "Check them, or use others",
    ),
    "unreachable or with another key": (
        "no source is reachable, or the keys differ",
        "Check the network, firewalls (UDP port 123), and the keys at both ends",
    ),
    "offline": (
        "the sources are offline, by command or configuration",
        "'chronyc online' makes chronyd poll them",
    ),
    "unreachable or offline": (
        "no source is reachable, and some are offline",
        "See 'chronyc online', and check the network and firewalls (UDP port 123)",
    ),
    "unreachable": (
        "no source is reachable",
        (
            "Check the network, firewalls (UDP port 123), the sources' addresses, and "
            "whether they are synchronised themselves"
        ),
    ),
}

_ASK = "'chronyc selectdata' (as root) says why"


def named(names: Iterable[str]) -> str:
    """Return the first names, and the number of the others."""
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
    """Name the sources that are not usable, grouped by cause."""
    return ", ".join(f"{named(names)} {kind}" for kind, names in _kinds(clock).items())


def _kinds(clock: Clock) -> dict[str, list[str]]:
    """Return the names of the sources that are not usable, by cause."""
    kinds: dict[str, list[str]] = {}
    sources = clock.sources or ()
    for index in clock.resolved:
        if not sources[index].is_usable():
            kinds.setdefault(_trouble(clock, index), []).append(sources[index].address)
    return kinds


def _trouble(clock: Clock, index: int) -> str:
    """Say in a few words why a source is not usable."""
    source = (clock.sources or ())[index]
    if clock.is_ignored(index):
        return _NOSELECT
    if source.state is SourceState.FALSETICKER:
        return "falseticker"
    if not source.is_reachable():
        return _silence(clock, source)
    if source.state is SourceState.JITTERY:
        return "too variable"
    if clock.select:
        return _NOT_SELECTABLE.get(clock.select[index].state, _UNKNOWN)
    # One or two replies, the first ones.
    return _NEW if source.reachability in (0b1, 0b11) else _UNKNOWN


def _silence(clock: Clock, source: Source) -> str:
    """Say why a source may have replied to none of the last polls."""
    if source.mode is SourceMode.REFCLOCK:
        return "dead"
    ntp = clock.ntp.get(source.address)
    # chronyd counts only replies that are synchronised. In selectdata, such a source
    # has the same state as one that never replied.
    if ntp and ntp.total_valid_rx and ntp.leap_status is LeapStatus.UNSYNC:
        return "not synchronised"
    auth = clock.auth.get(source.address)
    if (
        auth
        and auth.mode is AuthMode.NTS
        and not (auth.cookies or (auth.key_id and not auth.ke_attempts))
    ):
        return "without NTS keys"
    if auth and auth.mode is AuthMode.SYMMETRIC_KEY:
        return "unreachable or with another key"
    if clock.activity is None or not clock.activity.offline:
        return "unreachable"
    return "offline" if _all_offline(clock) else "unreachable or offline"


def _all_offline(clock: Clock) -> bool:
    """Whether all unreachable NTP sources are offline; no report says which are."""
    sources = clock.sources or ()
    dead = sum(sources[one].mode is not SourceMode.REFCLOCK for one in clock.dead)
    return clock.activity is not None and dead <= clock.activity.offline


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
    if not clock.usable:
        return _none_usable(clock)
    kinds = _kinds(clock)
    parts = [troubles(clock)] if kinds else []
    if clock.unresolved:
        parts.append(f"{clock.unresolved} not resolved (check DNS)")
    if not parts:
        return "Add sources"
    advice = ", ".join(parts)
    if _UNKNOWN in kinds:
        advice += f", {_ASK}"
    if clock.configured < 2:
        return f"{advice}. Add sources"
    if [*kinds] == [_NEW] and not clock.unresolved:
        return f"{advice}. Wait for more"
    return (
        f"{advice}. Repair, replace or remove what is not usable (-w usable_sources=1: "
        "accepts one source)"
    )


def _none_usable(clock: Clock) -> str:
    sources = clock.sources or ()
    listed = clock.resolved
    activity = clock.activity
    if not listed and not clock.unresolved:
        return "chronyd has no sources. Add a server or pool to its configuration"
    if clock.unresolved and all(
        one in clock.dead or clock.is_ignored(one) for one in listed
    ):
        number = clock.unresolved
        text = f"{number} sources have no address, as names are not resolved"
        if number == 1:
            text = "1 source has no address, as its name is not resolved"
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
    return _none_selectable(clock)


def _none_selectable(clock: Clock) -> str:
    kinds = _kinds(clock)
    if [*kinds] == [_NOSELECT]:
        names = named(kinds[_NOSELECT])
        return f"chronyd may not select any source ({names}): all have noselect"
    text = f"no source is selectable: {troubles(clock)}"
    if clock.unresolved:
        text += f", {clock.unresolved} not resolved (check DNS)"
    if _UNKNOWN in kinds:
        text += f". {_ASK}"
    if _UNKNOWN in kinds or _NEW in kinds:
        text += (
            ". This is normal for a few polls after a start, a resume, or when "
            "something else set the clock"
        )
    return text


def _all_dead(clock: Clock) -> str:
    kinds = _kinds(clock)
    known = [_SILENT[kind] for kind in kinds if kind in _SILENT]
    if not known:
        return _none_selectable(clock)  # they have noselect
    if len(kinds) == 1:
        ((said, cure),) = known
        return f"{said} ({named(*kinds.values())}). {cure}"
    cures = ". ".join(cure for _, cure in known)
    return f"no source is reachable: {troubles(clock)}. {cures}"
