"""The causes that are found where a chronyd is not reached or stays silent."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from chronyc import wait
from chronyd import Chronyd
from helpers import UNSHARE, in_namespaces, short_directory
from provision import Parts

from pychrony import _advice


def refused(path: str, number: int) -> str:
    return _advice.unreachable(path, True, OSError(number, os.strerror(number)))


def inside(script: str, code: str) -> str:
    """What code prints after the script, in a user, mount and network namespace."""
    names = "from pychrony import _advice as a\nimport pychrony\n"
    result = subprocess.run(
        [*UNSHARE, f'{script}\nexec "$0" -c "$1"', sys.executable, names + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def connect(path: str) -> str:
    """Python code that binds a client's socket beside path and connects it."""
    return (
        "import os, socket\n"
        f"s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        f"try: s.bind({os.path.dirname(path)!r} + '/client'); s.connect({path!r})\n"
        f"except OSError as e: print(a.unreachable({path!r}, True, e))\n"
        f"else: os.unlink(s.getsockname())\n"
    )


@pytest.mark.parametrize(
    ("host", "number", "advice"),
    [
        ("127.0.0.1", errno.ECONNREFUSED, "In a container, that address is its own"),
        ("::1", errno.ECONNREFUSED, "and its command port open there?"),
        ("::1", errno.EMFILE, "ulimit -n"),
        ("192.0.2.1", errno.ECONNREFUSED, "is on loopback only: see bindcmdaddress"),
        ("192.0.2.1", errno.EPERM, "A firewall or a sandbox"),
        ("fe80::1", errno.EINVAL, "needs its interface, as in fe80::1%eth0"),
    ],
)
def test_advice_for_a_port(host: str, number: int, advice: str) -> None:
    reason = OSError(number, os.strerror(number))
    assert advice in _advice.unreachable(host, False, reason)


def test_what_explains_itself_needs_no_advice(tmp_path: Path) -> None:
    reason = OSError(errno.ENETUNREACH, "Network is unreachable")
    assert _advice.unreachable("192.0.2.1", False, reason) == ""
    assert refused(f"{tmp_path}/sock", errno.EINVAL) == ""
    assert refused(f"{tmp_path}/sock", 0) == ""


def test_socket_that_is_not_there(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    path = f"{tmp_path}/chronyd.sock"
    assert "It has made no socket there" in refused(path, errno.ENOENT)
    tmp_path.chmod(0o777)
    advice = refused(path, errno.ENOENT)
    assert f"{tmp_path} has mode 0777" in advice
    assert f"chmod 0750 {tmp_path}" in advice
    advice = refused("/nowhere/chronyd.sock", errno.ENOENT)
    assert "There is no directory /nowhere" in advice
    assert "In a container, mount the directory" in advice
    # Of a path that may be wrong, no command is advised.
    advice = refused("/chronyd", errno.ENOENT)
    assert "can use, only in one of its own (mode 0750)" in advice
    assert "chmod" not in advice


def test_directory_that_chronyd_refuses(parts: Parts) -> None:
    """The real one makes no socket where others may enter, as its log says."""
    with Chronyd(parts) as daemon:
        daemon.kill()
        os.unlink(daemon.socket)
        os.unlink(f"{daemon.directory}/pid")
        os.chmod(daemon.directory, 0o777)
        user = ["-u", "root"] if os.geteuid() == 0 else ["-U"]
        with subprocess.Popen(
            [parts.chronyd, "-x", "-d", *user, "-f", f"{daemon.directory}/conf"],
            env={**os.environ, "LD_LIBRARY_PATH": parts.library_path},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr
            try:
                assert any("Wrong permissions" in line for line in process.stderr)
            finally:
                process.kill()
        assert not os.path.exists(daemon.socket)
        assert "has mode 0777" in refused(daemon.socket, errno.ENOENT)
        os.chmod(daemon.directory, 0o700)


@pytest.mark.parametrize("user", [0, 1000])
def test_not_permitted(user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    advice = refused("/run/nowhere/chronyd.sock", errno.EACCES)
    assert "the user of chronyd" in advice
    assert "Over UDP" in advice
    assert ("DAC_OVERRIDE" in advice) == (user == 0)
    # It belongs to root, whose name would mislead, as do the directories above.
    assert "the user of chronyd" in refused("/run/chronyd.sock", errno.EPERM)


def test_user_of_chronyd_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    path = tmp_path / "chronyd.sock"
    for uid, name in ((1, "the user daemon"), (4_000_000, "the user 4000000")):
        status = os.stat_result((0o755, 0, 0, 1, uid, uid, 0, 0, 0, 0))
        monkeypatch.setattr(os, "stat", lambda _, found=status: found)
        assert name in _advice._not_permitted(str(path))
        monkeypatch.undo()
        monkeypatch.setattr(os, "geteuid", lambda: 1000)


@in_namespaces
def test_proc_that_is_not_mounted(parts: Parts) -> None:
    code = (
        "try: pychrony.get_tracking({!r})\n"
        "except pychrony.ChronyConnectionError as e: print(e.message)"
    )
    with Chronyd(parts) as daemon:
        said = inside("mount -t tmpfs none /proc", code.format(daemon.socket))
    assert "/proc is not mounted" in said


@in_namespaces
def test_container_that_has_the_directory_at_the_same_path(parts: Parts) -> None:
    """Its network is another one, and has not even the address 127.0.0.1."""
    with Chronyd(parts) as daemon:
        script = f"mount --bind {daemon.directory} {daemon.directory}"
        read = f"print(pychrony.get_tracking({daemon.socket!r}).stratum)"
        assert inside(script, read) == "0\n"


@in_namespaces
def test_only_the_file_is_mounted_of_one_that_has_ended(parts: Parts) -> None:
    with Chronyd(parts) as daemon, short_directory() as other:
        path = f"{other}/chronyd.sock"
        script = f"mount -t tmpfs none {other}; : >{path}; "
        script += f"mount --bind {daemon.socket} {path}"
        daemon.kill()
        ended = inside(script, connect(path))
    assert "has ended, and only the file of the socket is mounted" in ended


def test_stopped_chronyd(parts: Parts) -> None:
    with Chronyd(parts) as daemon:
        assert (daemon.pid, "T") not in _advice.processes()
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            os.waitpid(daemon.pid, os.WUNTRACED)
            assert (daemon.pid, "T") in _advice.processes()
            for advice in (_advice.silent(daemon.socket), _advice.nothing_answers()):
                assert advice.startswith("A chronyd is stopped (process ")
        finally:
            os.kill(daemon.pid, signal.SIGCONT)


def test_process_that_has_ended_is_none(tmp_path: Path) -> None:
    """It is there until its parent has looked at it."""
    program = tmp_path / "chronyd"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        # Before its exec, it is called as its parent is.
        wait(lambda: process.pid in [pid for pid, _ in _advice.processes()])
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process.pid not in [pid for pid, _ in _advice.processes()]


@pytest.mark.parametrize(
    ("files", "advice"),
    [
        ({}, "Is chronyd hung or stopped, was its directory removed"),
        ({"_SELINUX": "1\n"}, "SELinux is enforcing: 'ausearch"),
        ({"_SELINUX": "0\n"}, "has another path)?"),
        ({"_APPARMOR": "Y\n", "_APPARMOR_PROFILE": ""}, "AppArmor confines it"),
        ({"_APPARMOR": "Y\n"}, "has another path)?"),
    ],
)
def test_silent_without_an_obvious_cause(
    files: dict[str, str],
    advice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_SELINUX", "_APPARMOR", "_APPARMOR_PROFILE"):
        monkeypatch.setattr(_advice, name, str(tmp_path / name))
        if name in files:
            (tmp_path / name).write_text(files[name])
    monkeypatch.setattr(_advice, "processes", lambda: [(7, "S")])
    found = _advice.silent(f"{tmp_path}/chronyd.sock")
    assert advice in found
    assert ("Over UDP" in found) == (not found.endswith("?"))


def test_directory_above_that_chronyd_may_not_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, path = tmp_path / "closed", tmp_path / "closed/run/chronyd.sock"
    path.parent.mkdir(parents=True)
    path.touch()
    modes = {str(closed): (0, 0, 0o700), str(path): (901, 901, 0o755)}

    def status(file: str | Path, **_: object) -> os.stat_result:
        uid, gid, mode = modes.get(str(file), (0, 0, 0o755))
        return os.stat_result((mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))

    real = os.path.realpath(path)
    monkeypatch.setattr(os.path, "realpath", lambda _: real)
    monkeypatch.setattr(os, "stat", status)
    advice = _advice.silent(str(path))
    assert f"chronyd runs as the user 901, who may not enter {closed}" in advice
    assert "Over UDP" in advice
    for allowed in ((901, 0, 0o700), (0, 901, 0o710), (0, 0, 0o701)):
        modes[str(closed)] = allowed
        assert _advice._closed_to_chronyd(str(path)) == ""
    modes[str(path)] = (0, 0, 0o755)
    assert _advice._closed_to_chronyd(str(path)) == ""


@pytest.mark.parametrize(
    ("daemons", "container", "installed", "advice"),
    [
        ([(7, "S")], False, True, "chronyd is running (process 7). See cmdport"),
        ([(n, "S") for n in range(5)], False, True, "(process 0, 1, 2, ...). See"),
        ([], True, False, "No chronyd is running in this container. Mount the host's"),
        ([], False, True, "chronyd is not running. Start it with: systemctl start"),
        ([], False, False, "none is installed. Install the package chrony; or in a"),
    ],
)
def test_nothing_answers(
    daemons: list[tuple[int, str]],
    container: bool,
    installed: bool,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_advice, "processes", lambda: daemons)
    monkeypatch.setattr(_advice, "in_container", lambda: container)
    monkeypatch.setattr(_advice, "_PROGRAMS", ("/bin/sh" if installed else "/nowhere",))
    assert advice in _advice.nothing_answers()


def test_each_advice_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several addresses were tried: what happened at each, then what to do."""
    monkeypatch.setattr(_advice, "nothing_answers", lambda: "Start it")
    refused = [f"{host}: Connection refused" for host in ("h (192.0.2.1)", "h (::2)")]
    question = "Is chronyd running, and its command port open there?"
    messages = [f"{one}. {question}" for one in refused]
    far = _advice.summary([*messages, "h (::3): no way. Look. Then go"], local=False)
    assert far == (
        "h (192.0.2.1): Connection refused; h (::2): Connection refused; "
        f"h (::3): no way. {question}. Look. Then go"
    )
    here = _advice.summary(
        [*messages, "/s: Read-only. Mount it", "::1: no"], local=True
    )
    assert here == (
        "h (192.0.2.1): Connection refused; h (::2): Connection refused; "
        "/s: Read-only; ::1: no. Mount it. Start it"
    )


@in_namespaces
def test_chronyd_in_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*UNSHARE, "echo; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        other.stdout.readline()  # it is in its namespace now
        try:
            monkeypatch.setattr(_advice, "processes", lambda: [(other.pid, "S")])
            advice = _advice.nothing_answers()
            # One of which that is not known, and one that is in this network.
            for pid in (-1, os.getpid()):
                monkeypatch.setattr(_advice, "processes", lambda pid=pid: [(pid, "S")])
                assert "See cmdport and bindcmdaddress" in _advice.nothing_answers()
        finally:
            other.kill()
    assert f"(process {other.pid}), but in another network namespace. Mount" in advice


def test_container_is_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(_advice, "_CONTAINER_FILES", ("/nowhere",))
    assert not _advice.in_container()
    monkeypatch.setattr(_advice, "_CONTAINER_FILES", (str(tmp_path),))
    assert _advice.in_container()
    monkeypatch.setattr(_advice, "_CONTAINER_FILES", ())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    assert _advice.in_container()
