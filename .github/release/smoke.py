"""Whether the installed package works: run with its interpreter and its version."""

import subprocess
import sys

import pychrony
from pychrony.testing import ScriptedDaemon, make_tracking

assert pychrony.__version__ == sys.argv[1], pychrony.__version__
with ScriptedDaemon(tracking=make_tracking(stratum=3)) as daemon:
    with pychrony.ChronyConnection(daemon.address) as connection:
        assert connection.get_tracking().stratum == 3
    check = (sys.executable, "-I", "-m", "pychrony.check", daemon.address)
    told = subprocess.run(check, stdout=subprocess.PIPE, check=False)
    # What it says of a clock that was made up does not matter.
    assert told.returncode < 3 and told.stdout.startswith(b"CHRONY "), told
