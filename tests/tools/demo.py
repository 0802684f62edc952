"""A little NTP network on loopback, and `python -m pychrony.check` on its client."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import provision
from chronyd import Chronyd

PARENT = os.getppid()
LONGEST = 60.0

# On loopback a measurement costs nothing: chronyd may poll many times a second.
FOLLOW = "server {host} port {port} iburst minpoll -6 maxpoll -2\n"
SERVERS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="let it run until Ctrl-C")
    keep: bool = parser.parse_args().keep
    # What ends a session of nox must not leave daemons behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        print(
            "Looking for libchrony, chronyd and chronyc. What is missing on this"
            "\nmachine is downloaded into your cache, once; that takes up to a minute.",
            flush=True,
        )
        parts = provision.provide()
        with ExitStack() as network:
            return _demonstrate(parts, network, keep)
    except KeyboardInterrupt:
        print("\nInterrupted. All daemons have been stopped.")
        return 0 if keep else 128 + signal.SIGINT
    except provision.ProvisionError as error:
        print(error, file=sys.stderr)
        return 3


def _demonstrate(parts: provision.Parts, network: ExitStack, keep: bool) -> int:
    print(
        "\nA private NTP network on loopback: a reference clock, three servers that"
        "\nfollow it, and a client that follows the three. All are real chronyd, and"
        "\nnone of them touches the clock of this machine. Their command ports:\n"
    )
    client = start(parts, network)
    _wait(client.address)
    status = _check(client.address, "-v") or _check(client.socket)
    if keep:
        _keep(parts, client.address)
    return status


def start(parts: provision.Parts, network: ExitStack, unusable: str = "") -> Chronyd:
    """Start a network whose client has these sources, too; return the client."""
    reference = network.enter_context(
        Chronyd(parts, "local stratum 1", bind="127.0.0.1", serve=True)
    )
    _introduce("reference", reference)
    follow_reference = FOLLOW.format(host="127.0.0.1", port=reference.ntp_port)
    follow_servers = ""
    for host in SERVERS:
        server = network.enter_context(
            Chronyd(parts, follow_reference, bind=host, serve=True)
        )
        _introduce("server", server)
        follow_servers += FOLLOW.format(host=host, port=server.ntp_port)
    follow_servers += unusable.format(port=reference.ntp_port)
    client = network.enter_context(Chronyd(parts, follow_servers))
    _introduce("client", client)
    return client


def _introduce(role: str, daemon: Chronyd) -> None:
    print(f"  {role:<10} {daemon.address:<16} pid {daemon.pid}", flush=True)


def _wait(address: str) -> None:
    """Show how the client synchronises, until it has, or LONGEST has passed."""
    print("\nWaiting until the client is synchronised:", flush=True)
    terminal = sys.stdout.isatty()
    start = time.monotonic()
    shown, done = "", False
    while not done and time.monotonic() - start < LONGEST:
        state, done = _state(address)
        line = f"  {time.monotonic() - start:4.1f} s  {state}"
        if terminal:
            print(f"\r{line}\033[K", end="", flush=True)
        elif state != shown:
            print(line, flush=True)
        shown = state
        time.sleep(0.05)
    if terminal:
        print()


def _state(address: str) -> tuple[str, bool]:
    # libchrony is looked for when this is imported: not before it was provided.
    import pychrony

    try:
        tracking = pychrony.get_tracking(address, timeout=0.5)
        sources = pychrony.get_sources(address, timeout=0.5)
    except pychrony.ChronyError as error:
        return str(error), False
    usable = sum(source.is_usable() for source in sources)
    # With less the check would warn of a source that rarely answers.
    measured = all(source.reachability.bit_count() >= 4 for source in sources)
    state = f"{usable} of {len(SERVERS)} servers usable, "
    if not tracking.is_synchronized():
        return f"{state}not synchronised yet", False
    done = usable == len(SERVERS) and measured
    return f"{state}synchronised at stratum {tracking.stratum}", done


def _check(*arguments: str) -> int:
    command = ["-m", "pychrony.check", *arguments]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    # The installed package, not what lies in the current directory.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *command], env=environment, check=False
    ).returncode


def _keep(parts: provision.Parts, address: str) -> None:
    print("\nThe network runs until Ctrl-C. Try in another terminal:\n")
    if parts.libchrony != provision.SONAME:  # and not in this environment either
        print(f"  export PYCHRONY_LIBCHRONY={shlex.quote(parts.libchrony)}")
    for command in ("watch", "check --format text"):
        print(f"  {shlex.quote(sys.executable)} -m pychrony.{command} {address}")
    print(
        "\nkill -STOP and the pid of a server silences it; what do they say? After"
        "\nkill -CONT it answers again.",
        flush=True,
    )
    # Whoever ends nox by a signal other than Ctrl-C does not end its children.
    while os.getppid() == PARENT:
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
