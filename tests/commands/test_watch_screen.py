"""The live view: what it shows, and its keys."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from typing import Any

import pytest
from checking import LOCAL, UNSYNCHRONISED, clock
from chronyd import Chronyd
from helpers import many_sources
from provision import Parts
from watching import SOURCES, View, asked, watch

from pychrony import AsyncChronyConnection
from pychrony.testing import ALL_COMMANDS, ScriptedDaemon, faults, make_tracking
from pychrony.watch._screen import Host, LiveView


def test_live_view_of_a_clock() -> None:
    tracking = make_tracking(
        offset=-0.000012,
        root_delay=0.001,
        root_dispersion=0.000524,
        reference_ip="192.0.2.1",
        stratum=3,
        frequency=-1.5,
        skew=0.0625,
    )

    async def test(view: View) -> None:
        shown = await view.until(f"{daemon.address} (UDP)", "s ago", "now")
        assert "offset -12us   error bound 1036us   stratum 3" in shown
        assert "source 192.0.2.1   leap Normal\n" in shown
        assert "frequency -1.500 ppm   skew 0.062 ppm   read at " in shown
        assert re.search(r"^ +\+2000us$", shown, flags=re.M)
        assert re.search(r"^ +0 [^ ]", shown, flags=re.M)
        assert re.search(r"^ +-2000us$", shown, flags=re.M)
        assert re.search(r"\^\* +192\.0\.2\.1 .* \+/- .* selected", shown)
        assert re.search(r"\^x +192\.0\.2\.2 .* falseticker", shown)
        assert re.search(r"#\+ +GPS .* combined", shown)

    with ScriptedDaemon(
        tracking=tracking, sources=SOURCES, open_commands=ALL_COMMANDS
    ) as daemon:
        watch(daemon.address, test)


def test_live_view_over_a_unix_socket(parts: Parts) -> None:
    async def test(view: View) -> None:
        await view.until(f"{daemon.socket} (Unix socket)", "not synchronised")
        await view.until("no error bound", "^?", "with too few measurements")

    with Chronyd(parts, "server 127.0.0.1 port 9 offline") as daemon:
        watch(daemon.socket, test)


def test_no_right_to_the_reasons() -> None:
    async def test(view: View) -> None:
        shown = await view.until("^*")
        assert "Selection" not in shown
        await view.press("down")
        await view.until("No column Selection")

    with ScriptedDaemon() as daemon:
        watch(daemon.address, test)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (UNSYNCHRONISED, "not synchronised   leap Not synchronised"),
        (LOCAL, "local mode   leap Normal"),
    ],
)
def test_clock_without_a_source(changes: Any, text: str) -> None:
    async def test(view: View) -> None:
        await view.until("no error bound", text)

    with ScriptedDaemon(tracking=make_tracking(**changes)) as daemon:
        watch(daemon.address, test, size=(160, 30))


def test_columns_of_a_narrow_screen() -> None:
    async def test(view: View) -> None:
        await view.until(" Selection")
        await view.resize(80, 24)
        # The list is laid out again before the lines above it are.
        shown = await view.until(
            "^x",
            "   stratum 2\n source 192.0.2.1   leap Normal   ",
            without=" Selection",
        )
        assert re.search(r"\^x +192\.0\.2\.2 .*\+/-", shown)
        for size in ((40, 10), (9, 4), (1, 1)):
            await view.resize(*size)
            for key in ("l", "down", "l", "end", "escape"):
                await view.press(key)
        await view.resize(120, 30)
        await view.until(" Selection")

    with ScriptedDaemon(sources=SOURCES, open_commands=ALL_COMMANDS) as daemon:
        watch(daemon.address, test)


def test_small_screen_has_one_line_of_the_clock_and_the_sources() -> None:
    async def test(view: View) -> None:
        shown = await view.until("^*", "error bound")
        lines = shown.split("\n")
        assert re.match(r" offset \+123us   error bound 3085us", lines[0])
        assert lines[1].split()[:3] == ["MS", "Name/IP", "address"]
        assert re.match(r" \^\* +192\.0\.2\.1 ", lines[2])
        assert max(map(len, lines)) <= 40
        await view.press("down", "down")
        # Of the chosen one, what matters most: its row has the name.
        shown = await view.until(" selection: falseticker   score 1.0\n")
        assert shown.count("192.0.2.2") == 1
        await view.press("l")
        shown = await view.until("reference clock")
        assert re.search(
            r"^ S {12}\* selected, \+ combined\n {14}with it, - not", shown, re.M
        )
        await view.press("l")
        daemon.stop()
        shown = await view.until(" LOST: Connection refused.")
        assert shown.split("\n")[1].split()[0] == "MS"

    with ScriptedDaemon(sources=SOURCES, open_commands=ALL_COMMANDS) as daemon:
        watch(daemon.address, test, size=(40, 10))


def test_medium_screen_has_no_graph() -> None:
    async def test(view: View) -> None:
        await view.until("^*", "q quit", without="now")
        await view.resize(110, 24)
        await view.until("^*", "q quit", "now")

    with ScriptedDaemon() as daemon:
        watch(daemon.address, test, size=(110, 16))


def test_many_sources_scroll() -> None:
    async def test(view: View) -> None:
        first, last = sources[0].address, sources[-1].address
        await view.until(f"*  {first} ", "Name/IP", without=f"*  {last} ")
        for key, shown, hidden in (
            ("end", last, first),
            ("pageup", sources[-17].address, first),
            ("home", first, last),
            ("pagedown", sources[16].address, last),
            ("pagedown", sources[32].address, last),
            ("up", sources[31].address, last),
        ):
            await view.press(key)
            # The details take lines of the list.
            await view.until(
                f"*  {shown} ", f" {shown}\n No column", without=f"*  {hidden} "
            )

    sources = many_sources(300)
    with ScriptedDaemon(sources=sources) as daemon:
        watch(daemon.address, test, size=(80, 24), timeout=60.0, interval=1000)


def test_no_sources() -> None:
    async def test(view: View) -> None:
        await view.until("No sources")
        await view.press("down", "pageup")
        await view.click(5, view.screen._lines.region.y)
        assert view.screen._lines.chosen is None

    with ScriptedDaemon(sources=[]) as daemon:
        watch(daemon.address, test)


def test_chosen_source() -> None:
    async def test(view: View) -> None:
        await view.until("^x")
        assert "samples" not in str(view)
        await view.press("down", "down")
        shown = await view.until("samples 8", "span 512 s", "std dev 100us")
        assert "192.0.2.2   selection: falseticker" in shown
        assert "options none" in shown
        await view.press("up")
        await view.until("192.0.2.1   selection: selected")
        # The third row, below the head, by a click.
        assert await view.click(5, view.screen._lines.region.y + 3)
        await view.until("GPS   selection: combined")
        await view.press("escape")
        await view.until(without="samples")
        await view.press("escape")

    with ScriptedDaemon(sources=SOURCES, open_commands=ALL_COMMANDS) as daemon:
        assert watch(daemon.address, test) == 0


def test_several_clocks() -> None:
    async def test(view: View) -> None:
        shown = await view.until("LOST", "OK", "WARNING", "4 clocks")
        order = [line.split()[0] for line in shown.split("\n")[2:6]]
        assert order == [lost.address, wrong.address, late.address, good.address]
        assert "4 clocks  2 CRITICAL  1 WARNING  1 OK" in shown
        await view.press("enter")  # nothing is chosen
        await view.press("down", "down", "enter")
        await view.until(f"{wrong.address} (UDP)", "Name/IP address", "Esc list")
        await view.press("down")
        await view.until("samples 8")
        await view.press("escape", "escape")
        await view.until("4 clocks", "Enter open", without="samples")
        await view.press("p")
        await view.until("PAUSED")
        await view.press("p", "down", "enter")
        await view.until(f"{late.address} (UDP)")
        await view.press("escape", "escape", "escape")

    with (
        ScriptedDaemon() as good,
        ScriptedDaemon(tracking=clock(offset=0.1)) as late,
        ScriptedDaemon(tracking=clock(offset=0.3)) as wrong,
        ScriptedDaemon(misbehave=faults.silent) as lost,
    ):
        addresses = [one.address for one in (good, late, wrong, lost)]
        assert watch(addresses, test) == 0


def test_clocks_that_were_not_read_yet_have_no_state() -> None:
    async def test(view: View) -> None:
        shown = await view.until("2 clocks", silent.address, "...")
        assert "OK" not in shown

    with ScriptedDaemon(misbehave=faults.silent) as silent:
        watch([silent.address, "127.0.0.1:1"], test, timeout=60.0, interval=1000)


def test_colours_follow_the_limits() -> None:
    async def test(view: View) -> None:
        await view.until("+100ms", "CRITICAL: error bound 616ms (more than 500ms)")
        # Textual's type is any visual, and only that of a text has spans.
        spans = view.screen._clock.visual.spans  # type: ignore[attr-defined]
        assert [str(span.style) for span in spans if "$" in str(span.style)] == [
            *("$text-warning", "$text-error")
        ]

    tracking = clock(offset=0.1, root_dispersion=0.5)
    with ScriptedDaemon(tracking=tracking) as daemon:
        watch(daemon.address, test)


def test_keys_of_the_live_view() -> None:
    async def test(view: View) -> None:
        await view.until("2000us", "error bound 1024us")
        await view.press("z")
        await view.until("+20us")
        await view.press("z")
        await view.until("+2000us")
        await view.press("l")
        await view.until("# reference clock", "power of 2 [s]", "xxxx[yyyy]")
        await view.press("l")
        await view.until(without="# reference clock")
        dark = view.screen.current_theme.dark
        await view.press("t")
        assert view.screen.current_theme.dark != dark
        await view.press("t")
        assert view.screen.current_theme.dark == dark
        await view.press("q")

    tracking = make_tracking(offset=12e-6, root_delay=2e-3, root_dispersion=12e-6)
    with ScriptedDaemon(tracking=tracking) as daemon:
        assert watch(daemon.address, test) == 0


def test_pause_stops_the_picture_and_not_the_readings() -> None:
    async def test(view: View) -> None:
        await view.until("stratum 3")
        await view.press("p")
        before = await view.until("PAUSED")
        daemon.tracking = make_tracking(stratum=4)
        daemon.requests.clear()
        while asked(daemon, "TRACKING") < 5:
            await asyncio.sleep(0.01)
        assert str(view) == before
        await view.press("p")
        await view.until("stratum 4", without="PAUSED")

    with ScriptedDaemon(tracking=make_tracking(stratum=3)) as daemon:
        watch(daemon.address, test)


def test_pause_before_the_first_reading() -> None:
    async def test(view: View) -> None:
        await view.until("reading chronyd")
        await view.press("p")
        await view.until("PAUSED", "reading chronyd")
        await view.press("p")
        await view.until("reading chronyd", without="PAUSED")

    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        watch(daemon.address, test, timeout=60.0)


def test_chronyd_goes_and_comes_back() -> None:
    async def test(view: View) -> None:
        await view.until("LOST: ", "Connection refused. Is chronyd running")
        daemon.start()
        await view.until("stratum 2", "^*", without="LOST")
        daemon.stop()
        # What was read last stays, and is marked.
        await view.until("LOST: ", "stratum 2", "^*")
        assert view.screen.query_one("#lines").has_class("old")
        daemon.start()
        await view.until(without="LOST")
        assert not view.screen.query_one("#lines").has_class("old")
        points = [point.offset is None for point in view.screen._hosts[0].points]
        changes = [one for one, other in pairwise(points) if one != other]
        assert changes == [True, False, True]

    with ScriptedDaemon() as daemon:
        daemon.stop()
        watch(daemon.address, test)


def test_keys_work_while_chronyd_is_silent() -> None:
    async def run() -> int | None:
        connection = AsyncChronyConnection(daemon.address, timeout=1000)
        screen = LiveView([Host(daemon.address, connection)], 1.0)
        async with screen.run_test() as pilot:
            view = View(screen, pilot)
            await view.until("reading chronyd")
            while not daemon.requests:
                await asyncio.sleep(0.01)
            await view.press("l")
            await view.until("# reference clock")
            await view.press("q")
        screen._show()  # as by a reading that comes at the end
        assert connection.closed
        return screen.return_code

    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        assert asyncio.run(run()) == 0


@pytest.mark.parametrize("status", [0, 1])
def test_end_of_the_readings(status: int) -> None:
    async def test(view: View) -> None:
        while view.screen.return_code is None:
            await asyncio.sleep(0.01)

    with (
        ScriptedDaemon(misbehave=faults.silent if status else None) as daemon,
        ScriptedDaemon() as other,
    ):
        assert watch([daemon.address, other.address], test, count=2) == status
