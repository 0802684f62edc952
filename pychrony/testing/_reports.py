"""The reports of chronyd's monitoring protocol, version 6, and their layouts."""

from __future__ import annotations

from typing import Any, NamedTuple

from ._fields import (
    Kind,
    Layout,
    address,
    age,
    attributes,
    constant,
    decode_address,
    fields,
    float32,
    i8,
    i16,
    name256,
    source_address,
    timespec,
    u8,
    u16,
    u32,
    u64,
)

# The status of a reply without a record.
INVALID = 3
NO_SUCH_SOURCE = 4
NOT_ENABLED = 6
NO_RTC = 13


class Count(NamedTuple):
    """The record of a reply to N_SOURCES."""

    sources: int


class SourceName(NamedTuple):
    """The record of a reply to NTP_SOURCE_NAME."""

    address: str
    name: str


class Argument:
    """The argument of a request: none."""

    size = 0

    def key(self, position: Any, record: Any) -> bytes:
        """Return the argument that requests a record, which has this index."""
        return b""

    def read(self, data: bytes) -> dict[str, Any]:
        """Return the argument as attributes of ``Request``."""
        return {}


class _Index(Argument):
    size = u32.size

    def key(self, position: Any, record: Any) -> bytes:
        number: int = position
        return number.to_bytes(self.size, "big")

    def read(self, data: bytes) -> dict[str, Any]:
        return {"index": int.from_bytes(data, "big")}


class _Address(Argument):
    size = address.size

    def key(self, position: Any, record: Any) -> bytes:
        return address.encode(record, "address")

    def read(self, data: bytes) -> dict[str, Any]:
        return {"address": decode_address(data)}


NOTHING = Argument()
INDEX = _Index()
ADDRESS = _Address()


class Report(NamedTuple):
    """One kind of request, and the layouts of its reply."""

    request: str
    """The request's name in chrony's protocol."""
    code: int
    layouts: dict[int, Layout]
    """The layouts of the reply by its code, the newest first."""
    commands: tuple[str, ...]
    """chronyd's ``opencommands`` that open it to clients over UDP."""
    argument: Argument = NOTHING
    absent: int = INVALID
    """The status where there is no such record."""

    @property
    def newest(self) -> Layout:
        return next(iter(self.layouts.values()))

    @property
    def record_size(self) -> int:
        """The length of the record in the newest layout [bytes]."""
        return sum(kind.size for kind, _ in self.newest)

    def encode(self, record: object) -> tuple[int, bytes]:
        """Encode a record in the layout without the attributes that are None.

        Return the code of the reply, and the encoded record.

        Raises:
            ValueError: The protocol cannot represent the value of an attribute.
        """
        known = attributes(self.newest)
        missing = {
            name
            for kind, name in self.newest
            if name and not kind.knows_none and getattr(record, name) is None
        }
        for reply, layout in self.layouts.items():
            if known - attributes(layout) == missing:
                return reply, b"".join(
                    _encode_field(kind, record, name) for kind, name in layout
                )
        raise ValueError(
            f"{type(record).__name__}: no chronyd leaves out just "
            f"{', '.join(sorted(missing))}"
        )


def _encode_field(kind: Kind, record: object, name: str) -> bytes:
    try:
        return kind.encode(record, name)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{type(record).__name__}.{name}: {error}") from error


_LISTS = ("authdata", "ntpdata", "selectdata", "sources", "sourcestats")

_NTP_DATA = fields(
    (address, "remote_address local_address"),
    (u16, "remote_port"),
    (u8, "leap_status version mode stratum"),
    (i8, "poll precision"),
    (float32, "root_delay root_dispersion"),
    (u32, "reference_id"),
    (timespec, "ref_time_ns"),
    (float32, "offset peer_delay peer_dispersion response_time jitter_asymmetry"),
    (u16, "flags"),
    (u8, "tx_timestamping rx_timestamping"),
    (u32, "total_tx total_rx total_valid_rx total_good_rx"),
)
_SERVER_STATS_2 = (
    "ntp_received nts_ke_accepted command_received ntp_dropped nts_ke_dropped "
    "command_dropped log_dropped ntp_authenticated"
)
_SERVER_STATS_3 = f"{_SERVER_STATS_2} ntp_interleaved timestamps_held timestamp_span"
_SERVER_STATS_4 = (
    f"{_SERVER_STATS_3} daemon_rx daemon_tx kernel_rx kernel_tx hardware_rx hardware_tx"
)

N_SOURCES = Report("N_SOURCES", 14, {2: fields((u32, "sources"))}, _LISTS)
SOURCE_DATA = Report(
    "SOURCE_DATA",
    15,
    {
        3: fields(
            (source_address, "address"),
            (i16, "poll"),
            (u16, "stratum state mode flags reachability"),
            (age, "last_sample_ago"),
            (float32, "orig_latest_meas latest_meas latest_meas_err"),
        )
    },
    ("sources",),
    INDEX,
    NO_SUCH_SOURCE,
)
TRACKING = Report(
    "TRACKING",
    33,
    {
        5: fields(
            (u32, "reference_id"),
            (address, "reference_ip"),
            (u16, "stratum leap_status"),
            (timespec, "ref_time_ns"),
            (float32, "offset last_offset rms_offset frequency residual_freq skew"),
            (float32, "root_delay root_dispersion update_interval"),
        )
    },
    ("tracking",),
)
SOURCESTATS = Report(
    "SOURCESTATS",
    34,
    {
        6: fields(
            (u32, "reference_id"),
            (address, "address"),
            (u32, "samples runs span"),
            (float32, "std_dev resid_freq skew offset offset_err"),
        )
    },
    ("sourcestats",),
    INDEX,
    NO_SUCH_SOURCE,
)
RTCREPORT = Report(
    "RTCREPORT",
    35,
    {
        7: fields(
            (timespec, "ref_time_ns"),
            (u16, "samples runs"),
            (u32, "span"),
            (float32, "offset freq_offset"),
        )
    },
    ("rtcdata",),
    absent=NO_RTC,
)
ACTIVITY = Report(
    "ACTIVITY",
    44,
    {12: fields((u32, "online offline burst_online burst_offline unresolved"))},
    ("activity",),
)
SMOOTHING = Report(
    "SMOOTHING",
    51,
    {
        13: fields(
            (u32, "flags"),
            (float32, "offset freq_offset wander last_update_ago remaining_time"),
        )
    },
    ("smoothing",),
    absent=NOT_ENABLED,
)
SERVER_STATS = Report(
    "SERVER_STATS",
    54,
    {
        25: (*fields((u64, _SERVER_STATS_4)), constant(b"\xff" * 32)),
        24: fields((u32, _SERVER_STATS_3)),
        22: fields((u32, _SERVER_STATS_2)),
        14: fields(
            (u32, "ntp_received command_received ntp_dropped command_dropped"),
            (u32, "log_dropped"),
        ),
    },
    ("serverstats",),
)
NTP_DATA = Report(
    "NTP_DATA",
    57,
    {
        26: (
            *_NTP_DATA,
            *fields((u32, "kernel_tx kernel_rx hardware_tx hardware_rx")),
            constant(b"\xff" * 16),
        ),
        16: (*_NTP_DATA, constant(b"\xff" * 12)),
    },
    ("ntpdata",),
    ADDRESS,
    NO_SUCH_SOURCE,
)
AUTH_DATA = Report(
    "AUTH_DATA",
    67,
    {
        20: (
            *fields(
                (u16, "mode key_type"),
                (u32, "key_id"),
                (u16, "key_length ke_attempts"),
                (age, "last_ke_ago"),
                (u16, "cookies cookie_length nak"),
            ),
            constant(b"\0" * 2),
        )
    },
    ("authdata",),
    ADDRESS,
    NO_SUCH_SOURCE,
)
SELECT_DATA = Report(
    "SELECT_DATA",
    69,
    {
        23: (
            *fields(
                (u32, "reference_id"),
                (address, "address"),
                (u8, "state authentication leap_status"),
            ),
            constant(b"\0"),
            *fields(
                (u16, "configured_options effective_options"),
                (age, "last_sample_ago"),
                (float32, "score low_limit high_limit"),
            ),
        )
    },
    ("selectdata",),
    INDEX,
    NO_SUCH_SOURCE,
)
NTP_SOURCE_NAME = Report(
    "NTP_SOURCE_NAME",
    65,
    {19: fields((name256, "name"))},
    ("sourcename",),
    ADDRESS,
    NO_SUCH_SOURCE,
)
MANUAL_LIST = Report("MANUAL_LIST", 41, {18: (constant(b"\0" * 388),)}, ("manual",))
"""No times were entered by hand."""

CLIENT_ACCESSES = Report(
    "CLIENT_ACCESSES_BY_INDEX3",
    68,
    {21: (constant(b"\0\0\0\x10" + b"\0" * 488),)},
    ("clients",),
)
"""No clients in a table of 16."""

REPORTS = (
    N_SOURCES,
    SOURCE_DATA,
    TRACKING,
    SOURCESTATS,
    RTCREPORT,
    ACTIVITY,
    SMOOTHING,
    SERVER_STATS,
    NTP_DATA,
    AUTH_DATA,
    SELECT_DATA,
)

CONTROL = frozenset(
    {*range(1, 10), 11, 13, *range(16, 27), *range(29, 32), 36, 37, 42, 43}
    | {*range(45, 51), 52, 53, 56, *range(62, 65), 66, *range(70, 76)}
)
"""Requests that change something: these are refused as not authorised."""

DEFAULT_OPEN_COMMANDS = frozenset(
    {"activity", "manual", "rtcdata", "smoothing", "sourcename"}
    | {"sources", "sourcestats", "tracking"}
)
"""What chronyd answers over UDP unless ``opencommands`` says something else."""

ALL_COMMANDS = frozenset({*DEFAULT_OPEN_COMMANDS, *_LISTS, "clients", "serverstats"})
"""All that ``opencommands`` can name."""
