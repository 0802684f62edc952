"""What the tests of the check share."""

from __future__ import annotations

import json
import re
import time
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from helpers import run_python

import pychrony
from pychrony import LeapStatus, SourceState
from pychrony.check import main
from pychrony.testing import ScriptedDaemon, make_source, make_tracking

STATES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


def check(*arguments: str, **options: Any) -> tuple[int, str]:
    """Run the command; return its status and output. It never shows a traceback."""
    result = run_python("-m", "pychrony.check", *arguments, **options)
    assert "Traceback" not in result.stderr
    return result.returncode, (result.stdout or "") + result.stderr


def check_here(*arguments: str) -> tuple[int, str]:
    """Run the check in this process, which takes less time."""
    with redirect_stdout(StringIO()) as output:
        status = main(list(arguments))
    return status, output.getvalue()


PERFORMANCE = re.compile(
    r"([a-z_]+=-?\d+(\.\d+)?s?"
    r"(;(@?(~|-?\d+(\.\d+)?)?:?(-?\d+(\.\d+)?)?)?){0,2}(;0)? ?)+"
)


SELECTED = make_source(address="192.0.2.1")


OTHER = make_source(address="192.0.2.2", state=SourceState.UNSELECTED)


WRONG = make_source(address="192.0.2.9", state=SourceState.FALSETICKER)


MANY_WRONG = [
    SELECTED,
    *(
        make_source(address=f"10.0.0.{number}", state=SourceState.FALSETICKER)
        for number in range(1, 8)
    ),
]


# Figures that are exact as chronyd's floats, so that the outputs are, too.
FINE: Any = {
    "offset": 2**-13,
    "root_delay": 2**-5,
    "root_dispersion": 2**-6,
    "reference_ip": "192.0.2.1",
    "stratum": 3,
    "frequency": -1.5,
    "skew": 0.0625,
}


UNSYNCHRONISED: Any = {
    "reference_id": 0,
    "reference_ip": "",
    "stratum": 0,
    "leap_status": LeapStatus.UNSYNC,
}


LOCAL: Any = {"reference_id": 0x7F7F0101, "reference_ip": ""}


def clock(age: float = 0.0, **changes: Any) -> pychrony.TrackingStatus:
    """A fine clock, updated ``age`` seconds ago, but for the changes."""
    return make_tracking(**{**FINE, "ref_time": time.time() - age, **changes})


def fine_daemon(**changes: Any) -> ScriptedDaemon:
    return ScriptedDaemon(tracking=clock(**changes), sources=[SELECTED, OTHER])


def ageless(output: str) -> str:
    """The output without the age, which is another each time."""
    output = re.sub(r'"time": ".*?"', "", output)
    return re.sub(r'\bage(",.*?"value": |=|\s+)[\d.e-]+(ms|us|s)?', "age", output)


def items(output: str) -> dict[str, dict[str, Any]]:
    """The items of the only clock in a JSON document."""
    (only,) = json.loads(output)["clocks"]
    return {item["name"]: item for item in only["items"]}
