"""Fixtures for pytest, which finds them if pychrony is installed.

``chrony_daemon`` is a running ``ScriptedDaemon``; the others are records::

    def test_alarm(chrony_daemon):
        chrony_daemon.tracking = make_tracking(offset=0.5)
        assert my_check(chrony_daemon.address) == "alarm"

    def test_text(chrony_source):
        assert my_text(chrony_source) == "192.168.1.100 is selected"
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import pychrony
from pychrony import testing


@pytest.fixture
def chrony_daemon() -> Iterator[testing.ScriptedDaemon]:
    """A running ``ScriptedDaemon`` on a UDP port of 127.0.0.1, with all defaults.

    Raises:
        ChronyLibraryError: there is no usable libchrony to read it with.
    """
    pychrony.reports()  # without it, a test of errors could pass
    with testing.ScriptedDaemon() as daemon:
        yield daemon


chrony_tracking = pytest.fixture(testing.make_tracking)
chrony_source = pytest.fixture(testing.make_source)
chrony_source_stats = pytest.fixture(testing.make_source_stats)
chrony_select_data = pytest.fixture(testing.make_select_data)
chrony_activity = pytest.fixture(testing.make_activity)
chrony_auth_data = pytest.fixture(testing.make_auth_data)
chrony_ntp_data = pytest.fixture(testing.make_ntp_data)
chrony_server_stats = pytest.fixture(testing.make_server_stats)
chrony_rtc_data = pytest.fixture(testing.make_rtc_data)
chrony_smoothing = pytest.fixture(testing.make_smoothing)

# Their names in pychrony 2.0. A fixture of the same name in a test file or conftest.py
# takes precedence.
tracking_status = pytest.fixture(testing.make_tracking)
source = pytest.fixture(testing.make_source)
source_stats = pytest.fixture(testing.make_source_stats)
rtc_data = pytest.fixture(testing.make_rtc_data)
