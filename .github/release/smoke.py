"""Whether the installed package works: run with its interpreter and its version."""

from __future__ import annotations

import subprocess
import sys

import pychrony
from pychrony.testing import ScriptedDaemon, make_tracking


def main(version: str) -> None:
    assert pychrony.__version__ == version, pychrony.__version__
    check = (sys.executable, "-I", "-m", "pychrony.check")
    told = subprocess.run([*check, "--version"], stdout=subprocess.PIPE, check=True)
    assert told.stdout.startswith(f"pychrony {version}, ".encode()), told.stdout
    with ScriptedDaemon(tracking=make_tracking(stratum=3)) as daemon:
        with pychrony.ChronyConnection(daemon.address) as connection:
            assert connection.get_tracking().stratum == 3
        # What it thinks of a clock that was made up does not matter.
        command = (*check, daemon.address)
        told = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    assert told.returncode < 3, told
    assert told.stdout.startswith(b"CHRONY "), told


if __name__ == "__main__":
    main(sys.argv[1])
