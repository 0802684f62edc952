"""Sweeps over many chronyds that end early, fail, or are cancelled."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from helpers import (
    Ask,
    cancelled,
    descriptors,
    in_child,
    on_alarm,
    on_each_loop,
    places,
    steps,
    ticking,
)

import pychrony
from pychrony import TrackingStatus, async_query_many, query_many
from pychrony.testing import ScriptedDaemon, faults


@pytest.mark.parametrize(
    ("arguments", "options", "kind"),
    [
        ((["127.0.0.1"], "nonsense"), {}, pychrony.ChronyDataError),
        ((["127.0.0.1"],), {"concurrency": 0}, ValueError),
        ((["127.0.0.1"],), {"concurrency": -1}, ValueError),
        ((["127.0.0.1"],), {"concurrency": 2.5}, TypeError),
        ((["127.0.0.1"],), {"timeout": 0}, ValueError),
        ((["127.0.0.1"],), {"retries": -1}, ValueError),
        ((None,), {}, TypeError),
        (("127.0.0.1",), {}, TypeError),
    ],
)
@pytest.mark.parametrize("function", [query_many, async_query_many])
def test_wrong_arguments_are_told_at_the_call(
    function: Any, arguments: Any, options: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        function(*arguments, **options)


@pytest.mark.parametrize("moment", range(4))
def test_sweep_left_early_closes_everything(
    moment: int, ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    addresses = places(many(3))
    before = descriptors()
    results: Any = ask(addresses * 30, concurrency=20)
    for _ in range(moment):
        next(results)
    assert (descriptors() > before) == bool(moment)
    results.close()
    assert descriptors() == before


@pytest.mark.interrupts
@pytest.mark.timeout(15)
def test_interrupted_sweep_closes_everything() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        before = descriptors()
        with (
            on_alarm(signal.default_int_handler, 0.2),
            pytest.raises(KeyboardInterrupt) as caught,
        ):
            list(query_many([daemon.address] * 20, timeout=20))
        assert caught.tb is not None
        assert descriptors() == before


def test_sweep_left_while_all_are_silent(ask: Ask) -> None:
    with ScriptedDaemon(misbehave=faults.silent) as silent, ScriptedDaemon() as daemon:
        before = descriptors()
        results: Any = ask([*[silent.address] * 50, daemon.address], timeout=1000)
        assert next(results)[0] == daemon.address
        assert descriptors() > before + 100
        results.close()
        assert descriptors() == before


@on_each_loop
async def test_cancelled_sweep_closes_everything() -> None:
    async def take(address: str) -> None:
        async with aclosing(async_query_many([address] * 50, timeout=1000)) as results:
            async for _ in results:
                raise AssertionError

    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        before = descriptors()
        for number in range(6):
            task = asyncio.create_task(take(daemon.address))
            await steps(number)
            await cancelled(task)
            assert descriptors() == before


@on_each_loop
async def test_sweep_that_is_dropped_is_closed_by_asyncio() -> None:
    with ScriptedDaemon() as daemon:
        before = descriptors()
        async for _ in async_query_many([daemon.address] * 50):
            break
        gc.collect()
        await steps(3)
        assert descriptors() == before


@on_each_loop
async def test_event_loop_goes_on_during_a_sweep() -> None:
    with ScriptedDaemon(misbehave=faults.silent) as daemon:
        addresses = [*["nonsense:0"] * 2000, daemon.address]
        async with ticking() as ticks:
            results = async_query_many(addresses, timeout=0.1)
            counts = [ticks() async for _ in results]
            # In between, too, where nothing has to be waited for.
            assert len(set(counts)) > 5
            assert ticks() > 100


class SurpriseError(Exception):
    pass


@pytest.mark.parametrize("moment", [0, 1, 30])
@pytest.mark.parametrize("who", ["addresses", "progress", "wrong type"])
def test_errors_of_the_caller_reach_the_caller(
    who: str, moment: int, ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    (daemon,) = many(1)
    kind: type[Exception] = TypeError if who == "wrong type" else SurpriseError

    def addresses() -> Iterator[Any]:
        for _ in range(moment):
            yield daemon.address
        if who == "wrong type":
            yield None
        elif who == "addresses":
            raise SurpriseError
        while True:
            yield daemon.address

    def progress(count: int) -> None:
        if who == "progress" and count > moment:
            raise SurpriseError

    before = descriptors()
    with pytest.raises(kind) as caught:
        for _ in ask(addresses(), concurrency=10, progress=progress):
            pass
    assert caught.tb is not None
    assert descriptors() == before


def test_slow_caller_loses_nothing_that_has_arrived(
    ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    addresses = places(many(2)) * 100
    results = ask(addresses, timeout=1.0, retries=0, concurrency=150)
    next(results)
    time.sleep(1.2)
    for _, result in results:
        assert isinstance(result, TrackingStatus)


def test_fork_in_the_middle_of_a_sweep(
    ask: Ask, many: Callable[..., list[ScriptedDaemon]]
) -> None:
    addresses = places(many(3)) * 20
    results = ask(addresses, concurrency=10, timeout=20, retries=0)
    found = [next(results)]

    def child() -> None:
        asyncio._set_running_loop(None)
        with pytest.raises(pychrony.ChronyUsageError, match="child"):
            for _ in results:
                pass

    def drop() -> None:
        nonlocal results
        results = iter(())
        gc.collect()

    for _ in range(3):
        in_child(child)
        found.append(next(results))
        in_child(drop)
    found += results
    assert Counter(address for address, _ in found) == Counter(addresses)
    assert all(isinstance(result, TrackingStatus) for _, result in found)
