"""Lists of a real daemon whose sources come and go while they are read."""

from __future__ import annotations

import os
import subprocess
from itertools import cycle
from threading import Event, Thread

from chronyd import Chronyd, chronyc_command
from network import READ
from provision import Parts

import pychrony
from pychrony import AuthData, Source

PERMANENT = [f"127.0.11.{number}" for number in range(1, 6)]


CHANGING = [f"127.0.12.{number}" for number in range(1, 21)]


READS = 300


class Change(Thread):
    """Deletes the first of `CHANGING`, adds it at the end, then the next one."""

    def __init__(self, parts: Parts, daemon: Chronyd) -> None:
        super().__init__()
        self.changes = 0
        self._end = Event()
        self._chronyc = subprocess.Popen(
            [*chronyc_command(parts), "-h", daemon.socket],
            env={**os.environ, "LD_LIBRARY_PATH": parts.library_path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self) -> None:
        assert self._chronyc.stdin and self._chronyc.stdout
        for address in cycle(CHANGING):
            for command in (f"delete {address}", f"add {_offline(address)}"):
                if self._end.wait(0.01):
                    return
                self._chronyc.stdin.write(f"{command}\n")
                self._chronyc.stdin.flush()
                assert self._chronyc.stdout.readline() == "200 OK\n"
            self.changes += 1

    def __enter__(self) -> Change:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()
        self._chronyc.communicate()


def _offline(address: str) -> str:
    return f"server {address} port 9 offline"


def test_lists_that_change_while_they_are_read(parts: Parts) -> None:
    """Each list is one that chronyd had, in its order."""
    ends = [
        [CHANGING[(start + number) % len(CHANGING)] for number in range(length)]
        for start in range(len(CHANGING))
        for length in (len(CHANGING) - 1, len(CHANGING))
    ]
    possible = {(*PERMANENT, *end) for end in ends}
    config = [
        "refclock SOCK {directory}/clock refid GPS",
        *map(_offline, PERMANENT + CHANGING),
    ]
    seen: set[tuple[str, ...]] = set()
    unsettled = reads = 0
    with (
        Chronyd(parts, "\n".join(config)) as daemon,
        pychrony.ChronyConnection(daemon.socket) as connection,
        Change(parts, daemon) as change,
    ):
        while change.is_alive() and (reads < READS or seen != possible):
            reads += 1
            for record in (Source, pychrony.SourceStats, pychrony.SelectData, AuthData):
                try:
                    found = READ[record](connection)
                except pychrony.ChronyDataError as error:
                    if "changed during each of" not in error.message:
                        raise
                    unsettled += 1
                    continue
                addresses = tuple(one.address for one in found)
                if record is not AuthData:
                    assert addresses[0] == ("GPS" if record is Source else "")
                    addresses = addresses[1:]
                assert addresses in possible
                seen.add(addresses)
        assert change.is_alive()
    print(
        f"{reads} reads of each list, {change.changes} changes, {unsettled} unsettled"
    )
