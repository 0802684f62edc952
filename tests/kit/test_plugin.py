"""The fixtures, as pytest finds them and under their names of pychrony 2.0."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers import run_python

from pychrony import ChronyConnection
from pychrony.testing import ScriptedDaemon, make_tracking, plugin

FIXTURES = {
    "chrony_tracking": "TrackingStatus",
    "chrony_source": "Source",
    "chrony_source_stats": "SourceStats",
    "chrony_select_data": "SelectData",
    "chrony_activity": "Activity",
    "chrony_auth_data": "AuthData",
    "chrony_ntp_data": "NTPData",
    "chrony_server_stats": "ServerStats",
    "chrony_rtc_data": "RTCData",
    "chrony_smoothing": "Smoothing",
    "tracking_status": "TrackingStatus",
    "source": "Source",
    "source_stats": "SourceStats",
    "rtc_data": "RTCData",
}

# Whether or not this pytest has loaded the plugin by its entry point.
chrony_daemon = plugin.chrony_daemon
for _name in FIXTURES:
    globals()[_name] = getattr(plugin, _name)


@pytest.mark.parametrize(("name", "kind"), FIXTURES.items())
def test_fixture(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    record: Any = request.getfixturevalue(name)
    assert type(record).__name__ == kind


def test_daemon_runs_on_udp(chrony_daemon: ScriptedDaemon) -> None:
    assert chrony_daemon.address.startswith("127.0.0.1:")
    with ChronyConnection(chrony_daemon.address) as connection:
        chrony_daemon.tracking = make_tracking(stratum=7)
        assert connection.get_tracking().stratum == 7


SUITE = """
import pytest
from pychrony import get_tracking

addresses = []

@pytest.fixture
def source():
    return "mine"

def test_of_2_0(tracking_status, source_stats, rtc_data):
    assert tracking_status.is_synchronized()
    assert source_stats.has_sufficient_samples() and rtc_data.is_calibrated()

def test_my_own_fixture_goes_first(source, chrony_source):
    assert source == "mine" and chrony_source.is_selected()

@pytest.mark.parametrize("n", [1, 2])
def test_daemon(chrony_daemon, n):
    assert get_tracking(chrony_daemon.address).stratum == 2
    assert chrony_daemon.requests == [("TRACKING", None)]

def test_error_of_a_hook(chrony_daemon):
    def broken(request, reply):
        raise LookupError("the hook")
    chrony_daemon.misbehave = broken
    with pytest.raises(OSError):
        get_tracking(chrony_daemon.address, timeout=0.05, retries=0)
"""


def run_pytest(suite: str, directory: Path, **variables: str) -> str:
    """Return what pytest says of a suite of its own."""
    file = directory / "test_suite.py"
    file.write_text(suite)
    pytest_command = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # Not the configuration of a project around the directory.
    pytest_command += ["-c", os.devnull, "--rootdir", str(directory)]
    plugins = ["-p", "no:pychrony", "-p", "pychrony.testing.plugin"]
    # To load those of other packages takes longer than the tests.
    variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return run_python(
        *pytest_command, *plugins, str(file), cwd=directory, **variables
    ).stdout


def test_in_a_suite_of_its_own(tmp_path: Path) -> None:
    said = run_pytest(SUITE, tmp_path)
    assert "5 passed, 1 error" in said
    assert "LookupError: the hook" in said


def test_a_daemon_is_of_no_use_without_libchrony(tmp_path: Path) -> None:
    """A program that takes every error for a bad clock would pass its test."""
    suite = "def test_bad_clock(chrony_daemon): pass"
    said = run_pytest(suite, tmp_path, PYCHRONY_LIBCHRONY="/nowhere.so")
    assert "1 error" in said
    assert "ChronyLibraryError: no usable libchrony. Tried /nowhere.so" in said
