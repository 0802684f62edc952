"""The enums of what chronyd reports.

Definitions: chronyc(1), "Monitoring commands", and libchrony's message.h.
"""

from enum import Enum, IntFlag

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "AuthMode",
    "FieldContent",
    "FieldType",
    "KeyType",
    "LeapStatus",
    "NTPFlag",
    "NTPMode",
    "SelectOption",
    "SelectState",
    "SmoothingFlag",
    "SourceMode",
    "SourceState",
    "Timestamping",
    "Transport",
]


class Transport(Enum):
    """How a connection reaches chronyd.

    Attributes:
        UNIX_SOCKET: the Unix domain socket, open to root and the user that
            chronyd runs as. It also accepts control commands; pychrony sends
            none.
        COMMAND_PORT: the UDP command port (323 by default), which serves
            monitoring requests to everybody on the same machine, and to other
            machines that ``cmdallow`` names.
    """

    UNIX_SOCKET = "unix_socket"
    COMMAND_PORT = "command_port"


class _OpenEnum(Enum):
    """An enum in which an unknown number becomes a member ``UNKNOWN_<n>``."""

    @classmethod
    def _missing_(cls, value: object) -> "_OpenEnum | None":
        if type(value) is not int or not 0 <= value <= 0xFFFFFFFF:
            return None
        member = object.__new__(cls)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        known: Any = cls._value2member_map_
        found: _OpenEnum = known.setdefault(value, member)
        return found

    def __reduce_ex__(self, _: object) -> "tuple[Any, ...]":
        # Some versions of Python (3.11.0 to 3.11.3) pickle by name.
        return type(self), (self.value,)


class LeapStatus(_OpenEnum):
    """What happens to the last minute of this UTC day.

    A number that a newer chronyd adds becomes a member ``UNKNOWN_<n>`` with that
    number as its value. The same applies to the other enums here.

    Attributes:
        NORMAL: nothing.
        INSERT: a leap second is inserted (23:59:60 exists).
        DELETE: a leap second is deleted (23:59:59 does not exist).
        UNSYNC: not known; the clock is not synchronised.
    """

    NORMAL = 0
    INSERT = 1
    DELETE = 2
    UNSYNC = 3


class SourceState(_OpenEnum):
    """The result of the selection for a source (chronyc's column ``S``).

    Attributes:
        SELECTED: ``*``, the source that the clock follows.
        NONSELECTABLE: ``?``, unreachable, unsynchronised or not yet measured.
        FALSETICKER: ``x``, disagrees with the majority of the others.
        JITTERY: ``~``, too variable.
        UNSELECTED: the same as COMBINED; its name in libchrony and pychrony 2.
        COMBINED: ``+``, good, and combined with the selected source.
        SELECTABLE: ``-``, good, but not combined with the selected source.
    """

    SELECTED = 0
    NONSELECTABLE = 1
    FALSETICKER = 2
    JITTERY = 3
    UNSELECTED = 4
    COMBINED = 4
    SELECTABLE = 5


class SourceMode(_OpenEnum):
    """The kind of a source (chronyc's column ``M``).

    Attributes:
        CLIENT: ``^``, an NTP server that chronyd is a client of.
        PEER: ``=``, an NTP peer.
        REFCLOCK: ``#``, a reference clock of this machine.
    """

    CLIENT = 0
    PEER = 1
    REFCLOCK = 2


class SelectState(_OpenEnum):
    """The result of the last selection for a source (chronyc: ``selectdata``).

    The value is the character code of chronyc's letter. Sources in state COMBINED
    or BEST are used. Those in ``W``, ``P``, ``U``, ``D`` and ``L`` are selectable,
    but not used. Those in other states cannot be selected. libchrony has no names
    for ``L``, ``r`` and ``?``.

    Attributes:
        IGNORED: ``N``, has the option noselect.
        NOT_SYNCHRONIZED: ``s``, is not synchronised.
        MISSING_SAMPLES: ``M``, does not have enough measurements.
        UNACCEPTABLE_DISTANCE: ``d``, root distance above ``maxdistance``.
        JITTERY: ``~``, jitter above ``maxjitter``.
        WAITING_FOR_OTHERS: ``w``, waits for others to leave state ``M``.
        STALE: ``S``, has older measurements than others, or did not reply to
            too many polls (``maxunreach``).
        ORPHAN: ``O``, stratum not below the orphan stratum (``local``).
        NOT_TRUSTED: ``T``, does not fully agree with sources that have
            ``trust``.
        FALSETICKER: ``x``, does not agree with the majority.
        MISSING_SELECTABLE_SOURCES: ``W``, waits for others to be selectable.
        NOT_PREFERRED: ``P``, another source has the option ``prefer``.
        WAITING_FOR_UPDATE: ``U``, waits for a new measurement.
        LARGE_DISTANCE: ``D``, root distance too large to be combined.
        OUTLIER: ``L``, differs too much from the best to be combined.
        UNACCEPTABLE_STRATUM: ``r``, stratum outside of the allowed range
            (``minstratum``, ``maxstratum``; chronyd 4.9).
        UNKNOWN: ``?``, was in no selection yet.
        COMBINED: ``+``, combined with the best source.
        BEST: ``*``, the source that the clock follows.
    """

    IGNORED = ord("N")
    NOT_SYNCHRONIZED = ord("s")
    MISSING_SAMPLES = ord("M")
    UNACCEPTABLE_DISTANCE = ord("d")
    JITTERY = ord("~")
    WAITING_FOR_OTHERS = ord("w")
    STALE = ord("S")
    ORPHAN = ord("O")
    NOT_TRUSTED = ord("T")
    FALSETICKER = ord("x")
    MISSING_SELECTABLE_SOURCES = ord("W")
    NOT_PREFERRED = ord("P")
    WAITING_FOR_UPDATE = ord("U")
    LARGE_DISTANCE = ord("D")
    OUTLIER = ord("L")
    UNACCEPTABLE_STRATUM = ord("r")
    UNKNOWN = ord("?")
    COMBINED = ord("+")
    BEST = ord("*")


class SelectOption(IntFlag):
    """Options of a source for the selection (chrony.conf, ``server``).

    Attributes:
        NOSELECT: never select the source.
        PREFER: prefer it to sources without this option.
        TRUST: assume that it is right; sources that disagree are falsetickers.
        REQUIRE: select no source unless one with this option is selectable.
    """

    NOSELECT = 0x1
    PREFER = 0x2
    TRUST = 0x4
    REQUIRE = 0x8


class AuthMode(_OpenEnum):
    """How NTP packets of a source are authenticated.

    Attributes:
        NONE: not at all.
        SYMMETRIC_KEY: with a key that both sides have.
        NTS: with Network Time Security.
    """

    NONE = 0
    SYMMETRIC_KEY = 1
    NTS = 2


class KeyType(_OpenEnum):
    """The algorithm of a key (chronyc: ``authdata``, column Type).

    For a symmetric key, the hash function or cipher; for NTS, the AEAD
    algorithm. NONE if there is no key.
    """

    NONE = 0
    MD5 = 1
    SHA1 = 2
    SHA256 = 3
    SHA384 = 4
    SHA512 = 5
    SHA3_224 = 6
    SHA3_256 = 7
    SHA3_384 = 8
    SHA3_512 = 9
    TIGER = 10
    WHIRLPOOL = 11
    AES128 = 13
    AES256 = 14
    AEAD_AES_SIV_CMAC_256 = 15
    AEAD_AES_128_GCM_SIV = 30


class NTPMode(_OpenEnum):
    """The mode in an NTP packet (RFC 5905).

    Attributes:
        NONE: no packet yet.
        ACTIVE_SYMMETRIC: from a peer.
        PASSIVE_SYMMETRIC: from a peer that does not have us configured.
        SERVER: from a server.
    """

    NONE = 0
    ACTIVE_SYMMETRIC = 1
    PASSIVE_SYMMETRIC = 2
    SERVER = 4


class Timestamping(_OpenEnum):
    """What took a timestamp; the value is the character code of chronyd's letter.

    Attributes:
        NONE: there is no packet yet.
        DAEMON: chronyd, the least exact.
        KERNEL: the kernel.
        HARDWARE: the network card, the most exact.
    """

    NONE = 0
    DAEMON = ord("D")
    KERNEL = ord("K")
    HARDWARE = ord("H")


class NTPFlag(IntFlag):
    """Properties of the last packet of a source (chronyc: ``ntpdata``).

    If the flag of a test is set, the packet **passed** it. TEST1 to TEST7 are the
    tests of RFC 5905. libchrony 0.1 and 0.2 swap the names of TESTB and TESTC; the
    names here are chronyd's.

    Attributes:
        TEST1: not a duplicate.
        TEST2: a reply to our last request.
        TEST3: its timestamps are set.
        TEST5: authentication is right.
        TEST6: the source is synchronised.
        TEST7: root delay, root dispersion and stratum are in range.
        TESTA: the peer delay is below its maximum.
        TESTB: the ratio of the delay to the smallest delay is in range.
        TESTC: the delay is in range of the deviation, or the quantile, of the
            other delays.
        TESTD: there is no synchronisation loop.
        INTERLEAVED: the packet was in interleaved mode.
        AUTHENTICATED: the packet was authenticated.
    """

    TEST1 = 0x200
    TEST2 = 0x100
    TEST3 = 0x80
    TEST5 = 0x40
    TEST6 = 0x20
    TEST7 = 0x10
    TESTA = 0x8
    TESTB = 0x4
    TESTC = 0x2
    TESTD = 0x1
    INTERLEAVED = 0x4000
    AUTHENTICATED = 0x8000


class SmoothingFlag(IntFlag):
    """State of the time smoothing of the NTP server.

    Attributes:
        ACTIVE: the served time is being smoothed.
        LEAPONLY: only leap seconds are smoothed.
    """

    ACTIVE = 0x1
    LEAPONLY = 0x2


class FieldType(_OpenEnum):
    """libchrony's type of a field (``chrony_field_type``)."""

    NONE = 0
    UINTEGER = 1
    INTEGER = 2
    FLOAT = 3
    TIMESPEC = 4
    STRING = 5


class FieldContent(_OpenEnum):
    """The meaning and unit of a field (``chrony_field_content``)."""

    NONE = 0
    COUNT = 1
    TIME = 2
    INTERVAL_LOG2_SECONDS = 3
    INTERVAL_SECONDS = 4
    OFFSET_SECONDS = 5
    MEASURE_SECONDS = 6
    OFFSET_PPM = 7
    MEASURE_PPM = 8
    OFFSET_PPM_PER_SECOND = 9
    RATIO = 10
    REFERENCE_ID = 11
    ENUM = 12
    BITS = 13
    FLAGS = 14
    ADDRESS = 15
    PORT = 16
    INDEX = 17
    LENGTH_BITS = 18
    LENGTH_BYTES = 19
    BOOLEAN = 20
