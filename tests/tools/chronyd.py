"""Private, real chronyd daemons on loopback that never touch the clock."""

from __future__ import annotations

import errno
import functools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from provision import Parts

START_TIMEOUT = 10.0
STOP_TIMEOUT = 5.0


class Chronyd:
    """A running chronyd with a directory and ports of its own.

    It answers when the constructor returns; `stop()`, or leaving the `with`
    block, leaves no process and no file behind.

    CONFIG is added to its configuration, with "{directory}" replaced by its
    directory, for sockets and keys. It listens for commands on BIND, on
    the loopback address of the other IP version where there is one, and on a
    Unix socket. With SERVE it is an NTP server on those addresses too. As root
    it can run as USER, with UMASK.
    """

    def __init__(
        self,
        parts: Parts,
        config: str = "",
        *,
        bind: str = "127.0.0.1",
        serve: bool = False,
        user: str = "root",
        umask: int = 0o022,
    ) -> None:
        other = "127.0.0.1" if ":" in bind else "::1"
        hosts = [bind, other] if _is_local(other) else [bind]
        self._parts = parts
        self._user, self._umask = user, umask
        self._last_log = ""
        self._process: subprocess.Popen[bytes] | None = None
        self.cmdport = free_port(hosts)
        self.ntp_port = free_port(hosts) if serve else 0
        self.address = (
            f"[{bind}]:{self.cmdport}" if ":" in bind else f"{bind}:{self.cmdport}"
        )
        # Clients put sockets with longer names beside the daemon's, and 107
        # bytes are all that a Unix socket's path can have: not $TMPDIR.
        self.directory = tempfile.mkdtemp(prefix="c", dir="/tmp")
        if user != "root":
            os.chown(self.directory, *pwd.getpwnam(user)[2:4])
        self.socket = f"{self.directory}/chronyd.sock"
        lines = [
            f"pidfile {self.directory}/pid",
            f"cmdport {self.cmdport}",
            f"bindcmdaddress {self.socket}",
            *(f"bindcmdaddress {host}" for host in hosts),
            f"port {self.ntp_port}",
        ]
        if serve:
            lines += [f"bindaddress {host}" for host in hosts]
            lines += ["allow 127.0.0.0/8", "allow ::1"]
        lines.append(config.replace("{directory}", self.directory))
        Path(self.directory, "conf").write_text("\n".join(lines) + "\n")
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Chronyd:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """All that it has logged, over restarts and after its end too."""
        try:
            return Path(self.directory, "log").read_text()
        except FileNotFoundError:
            return self._last_log

    def chronyc(self, *args: str) -> str:
        """What chronyc prints for these arguments, asked over the Unix socket."""
        result = run_chronyc(self._parts, self.socket, *args)
        if result.returncode:
            raise RuntimeError(
                f"chronyc {' '.join(args)}: {result.stdout}{result.stderr}".rstrip()
            )
        return result.stdout

    def restart(self) -> None:
        """Stop it if it still runs, and start it with the same ports and paths."""
        self._terminate()
        self._start()

    def kill(self) -> None:
        """As a crash would: its socket and pidfile stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        try:
            self._terminate()
        finally:
            self._last_log = self.log
            shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self) -> None:
        for stale in ("chronyd.sock", "pid"):
            Path(self.directory, stale).unlink(missing_ok=True)
        user = ["-u", self._user]
        if os.geteuid():
            user = ["-U", "-u", pwd.getpwuid(os.geteuid()).pw_name]
        with open(f"{self.directory}/log", "ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                [
                    *(self._parts.chronyd, "-x", "-d", *user),
                    *("-f", f"{self.directory}/conf"),
                ],
                env=environment(self._parts),
                stdin=subprocess.DEVNULL,
                umask=self._umask,
                stdout=log,
                stderr=log,
            )
        self._process = process
        self.pid = process.pid
        deadline = time.monotonic() + START_TIMEOUT
        while not os.path.exists(self.socket):
            if process.poll() is not None:
                raise RuntimeError(f"chronyd did not start:\n{self.log}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"chronyd did not come up in time:\n{self.log}")
            time.sleep(0.002)
        self.chronyc("activity")
        # chronyd goes on without a port that somebody else has taken.
        if "Could not open" in self.log[start:]:
            raise RuntimeError(f"chronyd cannot use its ports:\n{self.log}")

    def _terminate(self) -> None:
        try:
            if self._process is not None:
                self._process.terminate()
                # A stopped process would not notice.
                self._process.send_signal(signal.SIGCONT)
                self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()


def environment(parts: Parts) -> dict[str, str]:
    """The environment of chronyd and chronyc."""
    return {
        **os.environ,
        "LC_ALL": "C",
        "LD_LIBRARY_PATH": parts.library_path,
        # glibc then gives up on a name before it asks a server: no test
        # may send a query, and chronyd resolves even "offline" sources.
        "RES_OPTIONS": "attempts:0",
    }


def run_chronyc(
    parts: Parts, address: str, *args: str
) -> subprocess.CompletedProcess[str]:
    """Let chronyc ask the daemon at HOST:PORT or at the path of a socket."""
    host, _, port = address.rpartition(":")
    where = ("-h", host.strip("[]"), "-p", port) if host else ("-h", address)
    return subprocess.run(
        [*chronyc_command(parts), *where, *args],
        env=environment(parts),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=START_TIMEOUT,
    )


@functools.cache
def chronyc_command(parts: Parts) -> tuple[str, ...]:
    """How to run chronyc, without looking up any name.

    From 4.8 or so on, root's chronyc becomes a user that only an installation
    of chrony creates, unless told otherwise.
    """
    usage = subprocess.run(
        [parts.chronyc, "--help"],
        env={"LD_LIBRARY_PATH": parts.library_path},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    as_root = os.geteuid() == 0 and "-u USER" in usage
    return (parts.chronyc, "-n", *(("-u", "root") if as_root else ()))


def _is_local(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def free_port(hosts: list[str]) -> int:
    """A UDP port that is free on all of these addresses.

    The kernel gives higher ones to clients: one might take it before chronyd does.
    """
    while True:
        port = secrets.choice(range(10_000, 32_000))
        with ExitStack() as probes:
            try:
                for host in hosts:
                    family = socket.AF_INET6 if ":" in host else socket.AF_INET
                    probe = probes.enter_context(
                        socket.socket(family, socket.SOCK_DGRAM)
                    )
                    probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
