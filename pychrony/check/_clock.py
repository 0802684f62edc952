"""What was read of a clock, and the values that are checked."""

from __future__ import annotations

from pychrony import (
    LeapStatus,
    SelectOption,
    SelectState,
    Source,
    SourceMode,
    SourceState,
)

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    from pychrony import (
        Activity,
        AuthData,
        NTPData,
        SelectData,
        SourceStats,
        TrackingStatus,
    )

    Of = TypeVar("Of", SelectData, SourceStats)

# The reference IDs that a server has while it serves its own clock: chronyd's
# and ntpd's are 127.127.1.x, that of Windows is LOCL.
_LOCAL_IDS = (0x4C4F434C, 0x4C434C00)
_LOCAL_NETWORK = 0x7F7F0100


class Clock:
    """What was read of a clock.

    Attributes:
        tracking: the report ``tracking``.
        read_at: when, by the clock of this machine [s since 1970].
        sources: the report ``sources``; ``None`` if only ``tracking`` was read.
        resolved: indices of the sources that have an address or are reference clocks.
        dead: indices of the resolved that answered none of the last 8 polls.
        activity: the report ``activity``, if it was read.
        select: the report ``selectdata``, if it was read and fits the sources.
        auth: the report ``authdata`` by address, if it was read.
        ntp: the report ``ntpdata`` by address, if it was read.
    """

    def __init__(
        self,
        tracking: TrackingStatus,
        read_at: float,
        sources: Sequence[Source] | None = None,
        *,
        activity: Activity | None = None,
        select: Sequence[SelectData] = (),
        auth: Sequence[AuthData] = (),
        ntp: Sequence[NTPData] = (),
    ) -> None:
        self.tracking = tracking
        self.read_at = read_at
        self.sources = sources
        listed = sources or ()
        self.resolved = [
            index for index, one in enumerate(listed) if not is_unresolved(one)
        ]
        self.dead = [one for one in self.resolved if not listed[one].is_reachable()]
        self.activity = activity
        self.select = matching(listed, select)
        self.auth = {one.address: one for one in auth}
        self.ntp = {one.address: one for one in ntp}

    def with_sources(self, sources: Sequence[Source]) -> Clock:
        """Return the same clock with its sources."""
        return Clock(self.tracking, self.read_at, sources)

    @property
    def follows(self) -> bool:
        """Whether it is synchronised; otherwise its figures mean nothing."""
        return (
            self.tracking.is_synchronized()
            and self.tracking.leap_status is not LeapStatus.UNSYNC
        )

    @property
    def selected(self) -> Source | None:
        """The source that it follows."""
        return next(filter(Source.is_selected, self.sources or ()), None)

    @property
    def unresolved(self) -> int:
        """How many sources have no address yet, places of a pool included."""
        listed = len(self.sources or ()) - len(self.resolved)
        return max(listed, self.activity.unresolved if self.activity else 0)

    def is_ignored(self, index: int) -> bool:
        """Whether a source has the option ``noselect``, as far as that is known."""
        if not self.select:
            return False
        record = self.select[index]
        # Without measurements, the state is MISSING_SAMPLES whatever the options are.
        ignored = SelectOption.NOSELECT in record.effective_options
        return ignored or record.state is SelectState.IGNORED

    @property
    def configured(self) -> int:
        """How many sources could be usable."""
        ignored = sum(map(self.is_ignored, self.resolved))
        return len(self.resolved) - ignored + self.unresolved

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

    @property
    def no_majority(self) -> bool:
        """Whether the sources that could be selected disagree with each other."""
        usable = any(map(Source.is_usable, self.sources or ()))
        return not usable and len(self.falsetickers) > 1

    @property
    def age(self) -> float:
        """Time since the last update by the clock of this machine [s].

        Negative if the update is in the future. chronyd reports the update in true
        time, so the part of the offset that is still being slewed does not count.
        """
        age = self.read_at - self.tracking.ref_time
        rest = max(0.0, abs(age) - abs(self.tracking.offset))
        return rest if age > 0 else -rest

    @property
    def poll_interval(self) -> float | None:
        """Polling interval of the source that is followed [s].

        If none is followed now, the longest of all sources.
        """
        polls = [one.poll for one in self.sources or () if one.is_selected()]
        if not polls and self.sources:
            polls = [self.sources[index].poll for index in self.resolved]
        return 2.0 ** max(polls) if polls else None

    @property
    def contradiction(self) -> float | None:
        """Offset of the last sample of the source that is followed [s].

        Only what is beyond the error bound of the sample counts.
        """
        source = self.selected
        if source is None or not self.follows:
            return None
        return max(0.0, abs(source.latest_meas) - source.latest_meas_err)

    @property
    def upstream_is_local(self) -> bool | None:
        """Whether the server that is followed serves its own unsynchronised clock."""
        source = self.selected
        data = self.ntp.get(source.address) if source else None
        if data is None or not self.follows:
            return None
        identity = data.reference_id
        return identity & 0xFFFFFF00 == _LOCAL_NETWORK or (
            identity in _LOCAL_IDS and data.stratum > 1
        )


def matching(sources: Sequence[Source], records: Sequence[Of]) -> Sequence[Of]:
    """Return the records, or none if they are not those of the sources in this order.

    The lists were read one after the other.
    """
    # In the second, reference clocks have no address.
    if len(sources) != len(records) or any(
        two.address not in ("", one.address) for one, two in zip(sources, records)
    ):
        return ()
    return records


def is_unresolved(source: Source) -> bool:
    return source.mode is not SourceMode.REFCLOCK and source.address.startswith("ID#")
