"""Recordings: made of real and scripted daemons, and played to the real libchrony."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from chronyc import wait
from chronyd import Chronyd
from helpers import hung_daemon, on_full_disk, run_python
from kit_helpers import NAMES, udp_client
from provision import Parts

import pychrony
from pychrony import ChronyConnection, ChronyPermissionError, Source, _address
from pychrony.testing import (
    ALL_COMMANDS,
    RecordedDaemon,
    Request,
    ScriptedDaemon,
    _recording,
    faults,
    make_rtc_data,
    make_smoothing,
    make_source,
)
from pychrony.testing.__main__ import main


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recording, "_WAITS", (0.02, 0.04, 0.06))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "pychrony.testing", *arguments)


def read_all(address: str) -> dict[str, Any]:
    """Read every report, or the error in its place."""
    found: dict[str, Any] = {}
    with ChronyConnection(address, timeout=5, retries=0) as connection:
        for name in NAMES:
            try:
                found[name] = getattr(connection, f"get_{name}")()
            except ChronyPermissionError as error:
                found[name] = type(error)
    return found


def write(path: str, recording: object) -> str:
    Path(path).write_text(json.dumps(recording))
    return path


SOURCES = [
    make_source(),
    make_source(address="GPS", mode=pychrony.SourceMode.REFCLOCK),
    make_source(address="2001:db8::7"),
    make_source(address="ID#0000000007"),
]


def scripted(**arguments: Any) -> ScriptedDaemon:
    return ScriptedDaemon(
        **{
            "sources": SOURCES,
            "rtc_data": make_rtc_data(),
            "smoothing": make_smoothing(),
            **arguments,
        }
    )


# Real daemons


@pytest.fixture(scope="module")
def real(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chronyd]:
    """A chronyd with something in each report but that of the RTC."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"7 SHA256 HEX:{'5a' * 16}\n")
    with ExitStack() as stack:
        server = stack.enter_context(
            Chronyd(parts, f"local stratum 1\nkeyfile {keys}", serve=True)
        )
        client = stack.enter_context(
            Chronyd(
                parts,
                f"server 127.0.0.1 port {server.ntp_port} key 7 prefer iburst "
                "minpoll -6 maxpoll -6 maxsamples 4\n"
                "server 127.0.0.9 port 9 offline noselect\n"
                "server nowhere.invalid\n"
                "server ::1 port 9\n"
                # Not SHM, whose segments are the machine's, and others' to keep.
                "refclock SOCK {directory}/clock refid GPS\n"
                f"keyfile {keys}\n"
                "smoothtime 400 0.01\n",
                serve=True,
            )
        )
        wait(lambda: pychrony.get_tracking(client.socket).is_synchronized())
        yield client


def test_recording_of_a_real_daemon_reads_the_same(
    real: Chronyd, directory: str
) -> None:
    result = command("record", real.socket)
    assert (result.returncode, result.stderr) == (0, "")
    path = f"{directory}/clock.json"
    Path(path).write_text(result.stdout)
    now = read_all(real.socket)
    with RecordedDaemon(path) as daemon:
        then = read_all(daemon.address)
        assert read_all(daemon.address) == then
    with RecordedDaemon(path, address=f"{directory}/chronyd.sock") as daemon:
        assert read_all(daemon.address) == then
    # What a clock is doing changes between two readings, its configuration not.
    assert then["activity"] == now["activity"]
    assert then["rtc_data"] is now["rtc_data"] is None
    assert then["auth_data"] == now["auth_data"]
    for name, attributes in {
        "tracking": ["reference_id", "reference_ip", "stratum", "leap_status"],
        "server_stats": ["ntp_received", "timestamps_held", "daemon_rx"],
    }.items():
        for attribute in attributes:
            assert getattr(then[name], attribute) == getattr(now[name], attribute)
    for name in ("sources", "source_stats", "select_data", "ntp_data"):
        assert [one.address for one in then[name]] == [one.address for one in now[name]]
    assert then["server_stats"].command_received > 0
    assert any(one.total_good_rx for one in then["ntp_data"])
    # Nothing of the recording is left where chronyd is.
    usual = ["chronyd.sock", "clock", "conf", "log", "pid"]
    assert sorted(os.listdir(real.directory)) == usual


def test_scripted_daemon_sends_the_bytes_of_chronyd(
    real: Chronyd, directory: str
) -> None:
    """What pychrony reads of a real chronyd is sent by it byte for byte."""
    recording = _recording.record(real.socket)
    with RecordedDaemon(write(f"{directory}/1.json", recording)) as daemon:
        records = read_all(daemon.address)
    assert len(records["sources"]) == 5 and len(records["auth_data"]) == 4
    assert {one.mode.name for one in records["auth_data"]} == {"NONE", "SYMMETRIC_KEY"}
    with ScriptedDaemon(**records, open_commands=ALL_COMMANDS) as daemon:
        assert _recording.record(daemon.address) == recording


def test_what_is_refused_is_told_and_recorded(real: Chronyd, directory: str) -> None:
    result = command("record", real.address)
    assert result.returncode == 0
    assert result.stderr == (
        "python -m pychrony.testing: not authorised to read serverstats, ntpdata, "
        "authdata, selectdata. Record over chronyd's Unix socket, as root or the user "
        "that chronyd runs as, to have them, too\n"
    )
    path = f"{directory}/clock.json"
    Path(path).write_text(result.stdout)
    with RecordedDaemon(path) as daemon:
        then = read_all(daemon.address)
    closed = {name for name, got in then.items() if got is ChronyPermissionError}
    assert closed == {"select_data", "auth_data", "ntp_data", "server_stats"}
    assert then["activity"] == read_all(real.address)["activity"]


# Scripted daemons


def test_everything_that_is_said_is_recorded(any_address: str, directory: str) -> None:
    with scripted(address=any_address, open_commands=ALL_COMMANDS) as daemon:
        wanted = read_all(daemon.address)
        recording = _recording.record(daemon.address)
    assert os.listdir(directory) == []
    with RecordedDaemon(write(f"{directory}/clock.json", recording)) as daemon:
        assert read_all(daemon.address) == wanted
        daemon.misbehave = faults.status(2)
        assert read_all(daemon.address) == dict.fromkeys(wanted, ChronyPermissionError)


def test_the_format_of_a_recording() -> None:
    sources = [make_source(address="192.0.2.7")]
    with scripted(sources=sources, open_commands=ALL_COMMANDS) as daemon:
        recording = _recording.record(daemon.address)
    replies = recording.pop("replies")
    assert recording == {"format": "pychrony recording", "version": 1}
    assert [
        {key: value for key, value in entry.items() if key != "reply"}
        for entry in replies
    ] == [
        *({"request": code} for code in (14, 33, 35, 44, 51, 54)),
        *({"request": code, "index": 0} for code in (15, 34, 69)),
        *({"request": code, "address": "192.0.2.7"} for code in (57, 67)),
    ]
    assert replies[0]["reply"] == f"06020000000e0002{'0' * 40}00000001"


def test_what_is_not_a_reply_is_ignored() -> None:
    def hook(request: Request, reply: bytes) -> Iterable[bytes]:
        sequence = (request.sequence ^ 1).to_bytes(4, "big")
        return [
            reply[:27],
            b"\7" + reply[1:],
            reply[:1] + b"\1" + reply[2:],
            reply[:3] + b"\1" + reply[4:],
            reply[:5] + bytes((reply[5] ^ 1,)) + reply[6:],
            reply[:16] + sequence + reply[20:],
            reply,
        ]

    with scripted() as daemon:
        wanted = _recording.record(daemon.address)
        daemon.misbehave = hook
        assert _recording.record(daemon.address) == wanted


def test_lost_requests_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recording, "_WAITS", (0.02, 10.0))
    with scripted(misbehave=faults.dropping(2)) as daemon:
        recording = _recording.record(daemon.address)
        assert len(daemon.requests) > len(recording["replies"])
        daemon.misbehave = None
        assert _recording.record(daemon.address) == recording


@pytest.mark.usefixtures("impatient")
def test_a_silent_daemon_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with scripted(misbehave=faults.silent) as daemon:
        assert main(["record", daemon.address]) == 1
        assert daemon.requests == [("N_SOURCES", None)] * 3
        address = daemon.address
    output, error = capfd.readouterr()
    assert output == ""
    assert error == (
        f"python -m pychrony.testing: {address}: no answer to N_SOURCES in 0.12 s, or "
        "not done in 60 s\n"
    )


def test_recording_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recording, "_TIME_LIMIT", 0.2)
    with (
        scripted(misbehave=faults.delayed(0.05)) as daemon,
        pytest.raises(OSError, match=r"or not done in 0\.2 s"),
    ):
        _recording.record(daemon.address)


@pytest.mark.usefixtures("impatient")
def test_a_flood_of_nonsense_ends_in_time() -> None:
    def flood(request: Request, reply: bytes) -> Iterable[tuple[float, bytes]]:
        return [(delay / 100, b"noise") for delay in range(30_000)]

    with (
        scripted(misbehave=flood) as daemon,
        pytest.raises(OSError, match="no answer to N_SOURCES"),
    ):
        _recording.record(daemon.address)


@pytest.mark.usefixtures("impatient")
def test_a_full_unix_socket_ends_in_time() -> None:
    with hung_daemon() as path, pytest.raises(OSError, match="answer to N_SOURCES"):
        _recording.record(path)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (SOURCES, SOURCES[1:]),
        (SOURCES[:1], SOURCES),
        (SOURCES[:3], [*SOURCES[:2], SOURCES[3]]),
    ],
)
def test_a_list_that_changes_meanwhile_is_an_error(
    first: list[Source], then: list[Source]
) -> None:
    def hook(request: Request, reply: bytes) -> list[bytes]:
        if (request.name, request.index) == ("SELECT_DATA", len(first) - 1):
            daemon.sources = then
        return [reply]

    with ScriptedDaemon(sources=first, misbehave=hook) as daemon:
        with pytest.raises(ValueError, match="changed meanwhile"):
            _recording.record(daemon.address)


def test_the_number_of_sources_is_bounded() -> None:
    with scripted(misbehave=faults.count(65537)) as daemon:
        with pytest.raises(ValueError, match="claims to have 65537 sources"):
            _recording.record(daemon.address)
        assert ("SOURCE_DATA", 0) not in daemon.requests


def test_a_closed_list_has_no_sources(directory: str) -> None:
    with scripted(open_commands=["tracking"]) as daemon:
        recording = _recording.record(daemon.address)
    assert [entry["request"] for entry in recording["replies"]] == [
        *(14, 33, 35, 44, 51, 54)
    ]
    with scripted(open_commands=["sources"]) as daemon:
        recording = _recording.record(daemon.address)
    assert len(recording["replies"]) == 6 + 3 * len(SOURCES)


# Addresses


def test_record_finds_the_daemon_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    with scripted() as daemon:
        monkeypatch.setattr(
            _address, "LOCAL", (f"{directory}/none/s", f"{directory}/s", daemon.address)
        )
        recording = _recording.record(None)
        assert recording == _recording.record(daemon.address)
    monkeypatch.setattr(_address, "LOCAL", (f"{directory}/s", f"{directory}/t"))
    missing = "No such file or directory"
    with pytest.raises(OSError, match=f"/s: {missing}; {directory}/t: {missing}$"):
        _recording.record(None)


def test_record_resolves_a_name() -> None:
    with scripted() as daemon:
        name = daemon.address.replace("127.0.0.1", "localhost")
        assert _recording.record(name) == _recording.record(daemon.address)


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (pychrony.ChronyTimeoutError("not resolved"), "not resolved"),
        (pychrony.ChronyConnectionError("no such name"), "no such name"),
    ],
)
def test_a_name_without_an_address(
    error: Exception,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def resolve(target: object, timeout: float) -> None:
        assert timeout == 7
        raise error

    monkeypatch.setattr(_address, "resolve", resolve)
    assert main(["record", "nowhere.invalid"]) == 1
    assert capfd.readouterr() == ("", f"python -m pychrony.testing: {complaint}\n")


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("x..y", "'x..y' is not an address of a chronyd"),
        ("/nowhere/at/all", "/nowhere/at/all: No such file or directory"),
    ],
)
def test_errors_of_record_are_clear(address: str, complaint: str) -> None:
    result = command("record", address)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"python -m pychrony.testing: {complaint}")
    assert result.stderr.count("\n") == 1


def test_nobody_there_leaves_nothing(directory: str) -> None:
    with pytest.raises(OSError, match="No such file or directory"):
        _recording.record(f"{directory}/chronyd.sock")
    assert os.listdir(directory) == []


def test_a_full_disk_is_an_error() -> None:
    with scripted() as daemon:
        status, said = on_full_disk("pychrony.testing", "record", daemon.address)
    assert status == 1
    assert said == "python -m pychrony.testing: [Errno 28] No space left on device\n"


def test_the_command_writes_the_recording(capfd: pytest.CaptureFixture[str]) -> None:
    with scripted(open_commands=ALL_COMMANDS) as daemon:
        assert main(["record", daemon.address]) == 0
        output, error = capfd.readouterr()
        assert json.loads(output) == _recording.record(daemon.address)
        assert (output[-1], error) == ("\n", "")
        daemon.open_commands = ["sources", "tracking"]
        assert main(["record", daemon.address]) == 0
        error = capfd.readouterr().err
        assert error.startswith(
            "python -m pychrony.testing: not authorised to read sourcestats, rtcdata, "
            "activity, smoothing, serverstats, ntpdata, authdata, selectdata. "
        )
        daemon.open_commands = ["tracking"]
        assert main(["record", daemon.address]) == 0
    assert capfd.readouterr().err.startswith(
        "python -m pychrony.testing: not authorised to read authdata, ntpdata, "
        "selectdata, sources, sourcestats, rtcdata, activity, smoothing, serverstats. "
    )


def test_nowhere_to_write_to() -> None:
    with scripted() as daemon:
        command = f"{sys.executable} -m pychrony.testing record {daemon.address} >&-"
        result = subprocess.run(
            ["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False
        )
    assert result.returncode == 1
    assert result.stderr == "python -m pychrony.testing: there is no standard output\n"


@pytest.mark.parametrize("arguments", [(), ("play",), ("record", "a", "b")])
def test_usage_errors_of_record(
    arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m pychrony.testing" in capfd.readouterr().err


# Playback


def test_it_plays_the_very_bytes(directory: str) -> None:
    reply = bytes.fromhex("0602abcd00210005eeee000000000000") + bytes(12) + b"whatever"
    refusal = bytes.fromhex("060200000043000100020000") + bytes(16)
    entries = [
        {"request": 33, "reply": reply.hex()},
        {"request": 67, "address": "::", "reply": refusal.hex()},
    ]
    recording = {"format": "pychrony recording", "version": 1, "replies": entries}
    address = bytes(16) + b"\0\2\0\0"
    with (
        RecordedDaemon(write(f"{directory}/clock.json", recording)) as daemon,
        udp_client(daemon) as client,
    ):

        def ask(code: int, size: int) -> bytes:
            head = bytes.fromhex(f"06010000{code:04x}0000a1b2c3d4") + bytes(8)
            client.send((head + address).ljust(size, b"\0")[:size])
            return client.recv(999)

        assert ask(33, 36) == reply[:16] + b"\xa1\xb2\xc3\xd4" + reply[20:]
        assert ask(33, 35)[6:10].hex() == "00010013"
        assert ask(34, 84)[6:10].hex() == "00010003"
        assert ask(67, 40)[6:10].hex() == "00010002"
        assert ask(67, 39)[6:10].hex() == "00010013"
        assert daemon.requests == [
            ("TRACKING", None),
            ("TRACKING", None),
            ("34", None),
            ("AUTH_DATA", "::"),
            ("AUTH_DATA", None),
        ]


def test_what_was_not_recorded_is_no_source(directory: str) -> None:
    with scripted() as daemon:
        recording = _recording.record(daemon.address)
    recording["replies"] = [
        entry for entry in recording["replies"] if entry.get("index") != 2
    ]
    with RecordedDaemon(write(f"{directory}/clock.json", recording)) as daemon:
        with ChronyConnection(daemon.address) as connection:
            with pytest.raises(pychrony.ChronyDataError, match="changed during each"):
                connection.get_sources()


@pytest.mark.parametrize(
    "recording",
    [
        [],
        {},
        None,
        {"format": "pychrony recording", "version": 1},
        {"format": "pychrony recording", "version": 2, "replies": []},
        {"format": "something else", "version": 1, "replies": []},
        *(
            {"format": "pychrony recording", "version": 1, "replies": [entry]}
            for entry in (
                {},
                7,
                {"request": 33},
                {"request": 33, "reply": 7},
                {"request": 33, "reply": "xy"},
                {"request": 33, "reply": "00" * 27},
                {"request": 1, "reply": "00" * 28},
                {"request": 34, "reply": "00" * 28},
                {"request": 34, "index": -1, "reply": "00" * 28},
                {"request": 34, "index": "1", "reply": "00" * 28},
                {"request": 67, "reply": "00" * 28},
                {"request": 67, "address": "x", "reply": "00" * 28},
            )
        ),
    ],
)
def test_what_is_no_recording_is_refused(recording: object, directory: str) -> None:
    path = write(f"{directory}/clock.json", recording)
    with pytest.raises(ValueError, match="is no pychrony recording of version 1: "):
        RecordedDaemon(path)


def test_what_is_no_text_is_refused(directory: str) -> None:
    path = Path(f"{directory}/clock.json")
    for data in (b"", b"{", b"\xff\xfe"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is no pychrony recording of version 1"):
            RecordedDaemon(path)
    with pytest.raises(FileNotFoundError):
        RecordedDaemon(f"{directory}/none.json")
