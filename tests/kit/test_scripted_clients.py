"""Other people's clients read a scripted daemon: chronyc, and collectd's plugin."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import provision
import pytest
from chronyc import LOOKS, Chronyc, agree
from chronyd import run_chronyc
from kit_helpers import (
    NTP_DATA,
    NTP_DATA_2,
    RECORDS,
    SERVER_STATS,
    STATS_4,
    connected,
    read_all,
)
from provision import Parts

from pychrony import NTPData, ServerStats, SourceMode, SourceState
from pychrony.testing import (
    ScriptedDaemon,
    make_source,
    make_source_stats,
    make_tracking,
)


def chronyc_of(parts: Parts, daemon: ScriptedDaemon) -> Chronyc:
    return lambda *arguments: run_chronyc(parts, daemon.address, *arguments).stdout


# What a chronyd 4.3 sends, which does not know the newest counters.
OLDER: Any = {
    **RECORDS,
    "ntp_data": [replace(NTP_DATA, **NTP_DATA_2)],
    "server_stats": replace(SERVER_STATS, **STATS_4),
}
REFUSED = ("508 Bad reply from daemon", "518 Packet length mismatch")


def test_chronyc_reads_every_report(parts: Parts, directory: str) -> None:
    unread: list[tuple[str, type]] = []
    for age, given in (("new", RECORDS), ("old", OLDER)):
        with connected(**given, address=f"{directory}/{age}.sock") as (
            daemon,
            connection,
        ):
            chronyc, read = chronyc_of(parts, daemon), read_all(connection)
            for (kind, look), name in zip(LOOKS.items(), RECORDS, strict=True):
                if chronyc(*look.command.split()).startswith(REFUSED):
                    unread.append((age, kind))
                    continue
                records = read[name] if isinstance(read[name], list) else [read[name]]
                agree(chronyc, kind, partial(list, records))
    # As between real ones: chronyc up to 4.3 is refused by later chronyds, later
    # ones cannot read what that sends.
    ages, kinds = zip(*unread)
    assert kinds == (NTPData, ServerStats) and len(set(ages)) == 1


def test_chronyc_reads_names_of_sources(parts: Parts) -> None:
    sources = [
        make_source(),
        make_source(address="2001:db8::7", state=SourceState.UNSELECTED),
        make_source(address="GPS", mode=SourceMode.REFCLOCK, stratum=0),
    ]
    names = {"2001:db8::7": "ntp.example"}
    with ScriptedDaemon(sources=sources, source_names=names) as daemon:
        assert daemon.source_names == names
        chronyc = chronyc_of(parts, daemon)
        lines = chronyc("-N", "sources").splitlines()[2:]
        assert [line.split()[1] for line in lines] == [
            *("192.168.1.100", "ntp.example", "GPS")
        ]
        daemon.source_names = None
        assert "2001:db8::7" in chronyc("-N", "sources")


def test_chronyc_reads_what_there_is_none_of(parts: Parts, directory: str) -> None:
    with ScriptedDaemon() as daemon:
        chronyc = chronyc_of(parts, daemon)
        assert "210 n_samples = 0" in chronyc("manual", "list")
        assert "501 Not authorised" in chronyc("clients")
        assert "501 Not authorised" in chronyc("shutdown")
    with ScriptedDaemon(address=f"{directory}/chronyd.sock") as daemon:
        (head, _) = chronyc_of(parts, daemon)("clients").splitlines()
        assert head.startswith("Hostname")


COLLECTD = """
Hostname "here"
FQDNLookup false
Interval 1
BaseDir "{directory}"
PluginDir "{root}/usr/lib/collectd"
TypesDB "{root}/usr/share/collectd/types.db"
LoadPlugin csv
LoadPlugin chrony
<Plugin csv>
DataDir "{directory}"
</Plugin>
<Plugin chrony>
Host "{host}"
Port "{port}"
</Plugin>
"""


@pytest.mark.needs_packages
def test_collectd_reads_the_clock_and_its_sources(directory: str) -> None:
    # collectd writes into no directory with a dot before its name, such as .nox.
    root = provision.collectd()
    source = make_source(address="192.0.2.7", reachability=0o17, last_sample_ago=5)
    stats = make_source_stats(resid_freq=-2.5, skew=3.5)
    tracking = make_tracking(ref_time_ns=1705320000_250000000, update_interval=16.0)
    wanted = {
        "clock_stratum-chrony": tracking.stratum,
        "time_ref-chrony": tracking.ref_time,
        "time_offset_ntp-chrony": tracking.offset,
        "time_offset-chrony": tracking.last_offset,
        "time_offset_rms-chrony": tracking.rms_offset,
        "frequency_error-chrony": tracking.frequency,
        "clock_skew_ppm-chrony": tracking.skew,
        "root_delay-chrony": tracking.root_delay,
        "root_dispersion-chrony": tracking.root_dispersion,
        "clock_last_update-chrony": tracking.update_interval,
        "clock_stratum-192.0.2.7": source.stratum,
        "clock_state-192.0.2.7": source.state.value,
        "clock_mode-192.0.2.7": source.mode.value,
        "clock_reachability-192.0.2.7": source.reachability,
        "clock_last_meas-192.0.2.7": source.last_sample_ago,
        "time_offset-192.0.2.7": source.orig_latest_meas,
        "frequency_error-192.0.2.7": stats.resid_freq,
        "clock_skew_ppm-192.0.2.7": stats.skew,
    }
    with ScriptedDaemon(
        tracking=tracking, sources=[source], source_stats=[stats]
    ) as daemon:
        host, _, port = daemon.address.partition(":")
        configuration = Path(directory, "collectd.conf")
        configuration.write_text(
            COLLECTD.format(directory=directory, root=root, host=host, port=port)
        )
        with subprocess.Popen(
            [f"{root}/usr/sbin/collectd", "-f", "-C", configuration]
        ) as collectd:
            try:
                found: dict[str, float] = {}
                while found.keys() != wanted.keys():
                    assert collectd.poll() is None and found.keys() <= wanted.keys()
                    time.sleep(0.05)
                    found = _values(Path(directory, "here", "chrony"))
            finally:
                collectd.terminate()
    # The plugin writes six digits after the point.
    assert found == pytest.approx(wanted, abs=0.6e-6)


def _values(directory: Path) -> dict[str, float]:
    """Return the first value in each file of collectd that has one, by its name."""
    found: dict[str, float] = {}
    for file in directory.glob("*"):
        lines = file.read_text().splitlines()[1:]
        if lines:  # the date stands at the end of the name
            found[file.name[: -len("-2026-01-31")]] = float(lines[0].split(",")[1])
    return found
