"""A scripted daemon answers requests as a real chronyd does."""

from __future__ import annotations

import socket

import pytest
from chronyd import Chronyd
from kit_helpers import (
    ADDRESSES,
    NTP_DATA_2,
    ask,
    connected,
    header,
    read_all,
    read_tracking,
    request,
)
from provision import Parts

from pychrony import ChronyPermissionError
from pychrony.testing import (
    ALL_COMMANDS,
    DEFAULT_OPEN_COMMANDS,
    Request,
    ScriptedDaemon,
    make_auth_data,
    make_ntp_data,
)


@pytest.mark.parametrize(
    "ignored",
    [
        b"",
        request(size=27),
        request(size=861),
        request(kind=2),
        request(reserved=1),
        request()[:2] + b"\1" + request()[3:],
        request(version=4),
    ],
)
def test_ignores_what_chronyd_ignores(ignored: bytes) -> None:
    with ScriptedDaemon() as daemon:
        assert ask(daemon, ignored) == []
        assert daemon.requests == [("9999", None)]


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (request(version=5), header(33, 1, 18)),
        (request(version=7), header(33, 1, 18)),
        (request(code=200), header(200, 1, 3)),
        (request(size=103), header(33, 1, 19)),
        (request(code=15, size=75), header(15, 1, 19)),
        (request(code=15, size=76, index=4), header(15, 1, 4)),
        (request(code=34, size=84, index=0xFFFFFFFF), header(34, 1, 4)),
        (request(code=35, size=64), header(35, 1, 13)),
        (request(code=14, size=32), header(14, 2, 0) + b"\0\0\0\4"),
        (request(code=44, size=47), header(44, 1, 19)),
        (request(code=51, size=51), header(51, 1, 19)),
        (request(code=51, size=52), header(51, 1, 6)),
        (request(code=54, size=195), header(54, 1, 19)),
        (request(code=54, size=196), header(54, 1, 2)),
        (request(code=57, size=171), header(57, 1, 19)),
        (request(code=57, size=172), header(57, 1, 2)),
        (request(code=67, size=51), header(67, 1, 19)),
        (request(code=67, size=52), header(67, 1, 2)),
        (request(code=69, size=75), header(69, 1, 19)),
        (request(code=69, size=76), header(69, 1, 2)),
        (request(code=65, size=283), header(65, 1, 19)),
        (request(code=65, size=284), header(65, 1, 4)),
        (request(code=41, size=416), header(41, 18, 0) + bytes(388)),
        (request(code=68, size=520), header(68, 1, 2)),
        (request(code=62, size=28), header(62, 1, 2)),
    ],
)
def test_refuses_what_chronyd_refuses(data: bytes, reply: bytes) -> None:
    with ScriptedDaemon() as daemon:
        assert ask(daemon, data) == [reply]


REQUESTS = {
    "N_SOURCES": 14,
    "SOURCE_DATA": 15,
    "TRACKING": 33,
    "SOURCESTATS": 34,
    "RTCREPORT": 35,
    "ACTIVITY": 44,
    "SMOOTHING": 51,
    "SERVER_STATS": 54,
    "NTP_DATA": 57,
    "AUTH_DATA": 67,
    "SELECT_DATA": 69,
    "MANUAL_LIST": 41,
    "NTP_SOURCE_NAME": 65,
    "CLIENT_ACCESSES_BY_INDEX3": 68,
}
OPENED = {
    "activity": {"ACTIVITY"},
    "authdata": {"N_SOURCES", "AUTH_DATA"},
    "clients": {"CLIENT_ACCESSES_BY_INDEX3"},
    "manual": {"MANUAL_LIST"},
    "ntpdata": {"N_SOURCES", "NTP_DATA"},
    "rtcdata": {"RTCREPORT"},
    "selectdata": {"N_SOURCES", "SELECT_DATA"},
    "serverstats": {"SERVER_STATS"},
    "smoothing": {"SMOOTHING"},
    "sourcename": {"NTP_SOURCE_NAME"},
    "sources": {"N_SOURCES", "SOURCE_DATA"},
    "sourcestats": {"N_SOURCES", "SOURCESTATS"},
    "tracking": {"TRACKING"},
}


def readable(daemon: ScriptedDaemon) -> set[str]:
    replies = ask(daemon, *(request(code, 520) for code in REQUESTS.values()))
    refused = {reply[5] for reply in replies if reply[8:10] == b"\0\2"}
    return {name for name, code in REQUESTS.items() if code not in refused}


def test_each_open_command_opens_its_requests_over_udp() -> None:
    with ScriptedDaemon() as daemon:
        closed = {"AUTH_DATA", "NTP_DATA", "SELECT_DATA", "SERVER_STATS"}
        closed.add("CLIENT_ACCESSES_BY_INDEX3")
        assert readable(daemon) == set(REQUESTS) - closed
        for command, opened in OPENED.items():
            daemon.open_commands = [command]
            assert readable(daemon) == opened
        daemon.open_commands = iter(OPENED)
        assert daemon.open_commands == ALL_COMMANDS
        assert readable(daemon) == set(REQUESTS)
        daemon.open_commands = ()
        assert readable(daemon) == set()
        daemon.open_commands = None
        assert daemon.open_commands == DEFAULT_OPEN_COMMANDS


def test_unknown_open_commands_are_refused() -> None:
    with pytest.raises(ValueError, match=r"knows no 'nonsense', 'trackin', only activ"):
        ScriptedDaemon(open_commands=["trackin", "tracking", "nonsense"])
    daemon = ScriptedDaemon(open_commands=["tracking"])
    with pytest.raises(ValueError, match="knows no ' ',"):
        daemon.open_commands = "sources tracking"
    assert daemon.open_commands == {"tracking"}


def test_a_unix_socket_answers_everything(directory: str) -> None:
    with connected(address=f"{directory}/chronyd.sock", open_commands=()) as (
        _,
        connection,
    ):
        assert None not in {**read_all(connection), "rtc_data": 0, "smoothing": 0}


def test_a_closed_request_is_a_permission_error_and_seen() -> None:
    with connected() as (daemon, connection):
        with pytest.raises(ChronyPermissionError):
            connection.get_select_data()
        with pytest.raises(ChronyPermissionError):
            connection.get_auth_data()
        names = [name for name, _ in daemon.requests]
        assert {"SELECT_DATA", "AUTH_DATA"} <= set(names)


def test_the_longest_reply_decides_what_is_demanded() -> None:
    records = [make_ntp_data(), make_ntp_data(address="::1", **NTP_DATA_2)]
    argument = bytes(15) + b"\1\0\2\0\0"
    for ntp_data in (records, records[::-1]):
        with ScriptedDaemon(ntp_data=ntp_data, open_commands=["ntpdata"]) as daemon:
            assert ask(daemon, request(57, 171, argument=argument)) == [
                header(57, 1, 19)
            ]


def test_an_unknown_address_is_no_source() -> None:
    argument = bytes((192, 0, 2, 1)) + bytes(12) + b"\0\1\0\0"
    with ScriptedDaemon(open_commands=ALL_COMMANDS) as daemon:
        for code in (57, 67):
            data = request(code, 196, argument=argument)
            assert ask(daemon, data) == [header(code, 1, 4)]


@pytest.mark.parametrize("text", ADDRESSES)
def test_every_kind_of_address_is_told_of_a_request(text: str) -> None:
    seen: list[Request] = []

    def hook(request: Request, reply: bytes) -> list[bytes]:
        seen.append(request)
        return [reply]

    daemon = ScriptedDaemon(
        auth_data=[make_auth_data(address=text)], open_commands=ALL_COMMANDS
    )
    record = daemon.source_stats[0]
    with daemon:
        (stats,) = ask(daemon, request(34, 84))
        daemon.misbehave = hook
        ask(daemon, request(67, 52, argument=stats[32:52]))
    assert record.address == text
    assert [(one.name, one.index, one.address) for one in seen] == [
        ("AUTH_DATA", None, text),
        ("9999", None, None),
    ]


def test_answers_requests_of_any_allowed_length_alike() -> None:
    with ScriptedDaemon() as daemon:
        least, most = ask(daemon, request(), request(size=860))
    assert least == most
    assert len(least) == 104


def test_clients_without_a_path_get_no_answer(directory: str) -> None:
    with ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.connect(daemon.address)
            client.send(request())
        assert read_tracking(daemon) is not None
        assert daemon.requests == [("TRACKING", None)]


# Of these, each chronyd knows the code, and so refuses it over UDP: not of 56, 64 and
# from 72 on, which came or went with its versions.
READ_ONLY = {14: 32, 15: 76, 33: 104, 34: 84, 35: 56, 41: 416, 44: 48, 51: 52, 65: 284}
CLOSED = (1, 9, 11, 13, 16, 26, 31, 36, 43, 50, 54, 57, 62, 66, 67, 68, 69, 70)
UNKNOWN = (12, 27, 38, 40, 58, 61, 79)


def test_codes_are_answered_as_by_a_real_chronyd(parts: Parts) -> None:
    """Over UDP, where nobody may change anything."""
    asked = [request(code, size, index=9) for code, size in READ_ONLY.items()]
    asked += [request(code, 860) for code in (*CLOSED, *UNKNOWN)]
    with Chronyd(parts, "local stratum 5") as real, ScriptedDaemon() as scripted:
        wanted, given = ask(real, *asked), ask(scripted, *asked)
    heads = [
        [(data[5], data[9], len(data)) for data in each] for each in (wanted, given)
    ]
    assert heads[0] == heads[1]


@pytest.mark.parametrize("name", ["x" * 256, "a\0b"])
def test_names_of_sources_that_cannot_be_said_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name has at most 255 bytes"):
        ScriptedDaemon(source_names={"192.168.1.100": name})
