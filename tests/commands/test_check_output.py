"""Where ``python -m pychrony.check`` writes to."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from checking import ageless, check, check_here, fine_daemon

from pychrony.check import OK, UNKNOWN, WARNING


@pytest.mark.parametrize("style", ["text", "nagios", "json"])
def test_output_to_a_file(tmp_path: Path, style: str) -> None:
    file = tmp_path / "clock"
    link = tmp_path / "link"
    link.symlink_to(file)
    with fine_daemon() as daemon:
        options = ("-f", style, daemon.address)
        _, shown = check_here(*options)
        assert check_here(*options, "--output", str(link)) == (OK, "")
        written = file.read_text()
        assert ageless(written) == ageless(shown)
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert link.is_symlink()
        # Nothing else is written there, and nobody sees half a file.
        assert sorted(tmp_path.iterdir()) == [file, link]
        before = file.stat().st_ino
        check_here(*options, "-o", str(file))
        assert file.stat().st_ino != before
        # What is no file is not replaced.
        status, piped = check(*options, "-o", "/dev/stdout")
    assert status == OK
    assert piped[:20] == written[:20]


def test_output_to_a_full_disk(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    file.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with fine_daemon() as daemon:
        said = "CHRONY UNKNOWN - cannot write '/dev/full': No space left on device\n"
        assert check_here(daemon.address, "-o", "/dev/full") == (UNKNOWN, said)
        # As full as a disk can be made without filling one.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        try:
            found = check_here(daemon.address, "-o", str(file))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = f"CHRONY UNKNOWN - cannot write '{file}': File too large\n"
    assert found == (UNKNOWN, said)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_output_is_that_of_a_check_or_nothing(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    file.write_text("old")
    for options in (["-w", "bogus=1"], ["--hosts", "/dev/null"], ["-V"], ["-h"]):
        status, output = check_here(*options, "-f", "json", "-o", str(file))
        assert output.startswith("CHRONY UNKNOWN - " if status else ("pych", "usage"))
    assert file.read_text() == "old"


def test_output_to_where_nothing_can_be_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # which nobody reads
    with fine_daemon() as daemon:
        for name, reason in (("pipe", ""), ("no/file", "No such file")):
            status, output = check_here(daemon.address, "-o", f"{tmp_path}/{name}")
            assert status == UNKNOWN
            said = f"CHRONY UNKNOWN - cannot write '{tmp_path}/{name}': {reason}"
            assert output.startswith(said)


def test_standard_output_is_never_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with fine_daemon() as daemon:
        for name in ("/dev/stdout", "-"):
            with log.open("a") as file:
                assert check(daemon.address, "-o", name, stdout=file)[0] == OK
    assert [line[:9] for line in log.read_text().splitlines()] == (
        ["before", "CHRONY OK", "CHRONY OK"]
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    with fine_daemon(offset=0.1) as daemon:
        for addresses in (daemon.address, f"{daemon.address} {daemon.address}"):
            command = f"{sys.executable} -m pychrony.check {addresses} {closed}"
            result = subprocess.run(["sh", "-c", command], check=False)
            assert result.returncode == WARNING


def test_reader_that_leaves() -> None:
    read, write = os.pipe()
    os.close(read)
    with fine_daemon() as daemon, open(write, "wb") as pipe:
        for options in (["-v"], ["-h"], ["-V"]):
            assert check(*options, daemon.address, stdout=pipe) == (OK, "")


def test_full_disk() -> None:
    with fine_daemon() as daemon, open("/dev/full", "wb") as full:
        status, output = check(daemon.address, stdout=full)
        both = f"{sys.executable} -m pychrony.check -V >/dev/full 2>&1"
        assert subprocess.run(["sh", "-c", both], check=False).returncode == UNKNOWN
    assert status == UNKNOWN
    assert "cannot write: [Errno 28] No space left on device" in output
