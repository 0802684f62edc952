"""The fixtures that several test files use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from helpers import LOOPS, Ask, Results, Runner, T, short_directory

from pychrony import _advice, _queries, async_query_many, query_many
from pychrony._session import Session
from pychrony.testing import ScriptedDaemon, make_tracking


@pytest.fixture(params=["UDP", "Unix"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address for a scripted daemon, of either transport."""
    if request.param == "UDP":
        yield "127.0.0.1:0"
    else:
        with short_directory() as directory:
            yield f"{directory}/chronyd.sock"


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop."""
    return LOOPS[request.param]


@pytest.fixture
def run(loop: Callable[[], asyncio.AbstractEventLoop]) -> Runner[Any]:
    """``asyncio.run`` with that loop, in debug mode; no task or timer is left."""
    errors: list[Any] = []

    def run(main: Coroutine[Any, Any, T]) -> T:
        async def alone() -> T:
            result = await main
            assert asyncio.all_tasks() == {asyncio.current_task()}
            timers = getattr(running, "_scheduled", ())  # of asyncio's own loops
            assert all(timer.cancelled() for timer in timers)
            return result

        running = loop()
        running.set_debug(True)
        running.slow_callback_duration = 1000
        running.set_exception_handler(lambda _, context: errors.append(context))
        try:
            return running.run_until_complete(alone())
        finally:
            running.run_until_complete(running.shutdown_asyncgens())
            running.close()
            assert errors == []

    return run


def awaited(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> Callable[..., Results]:
    """Make ``async_query_many`` an ordinary iterator."""

    def begin(*arguments: Any, **options: Any) -> Results:
        return going(async_query_many(*arguments, **options))

    def going(results: AsyncGenerator[tuple[Any, Any], None]) -> Results:
        loop = factory()
        try:
            while True:
                yield loop.run_until_complete(results.__anext__())
        except StopAsyncIteration:
            pass
        finally:
            loop.run_until_complete(results.aclose())
            assert not asyncio.all_tasks(loop)
            loop.close()

    return begin


DRIVERS: dict[str, Ask] = {
    "blocking": query_many,
    **{name: awaited(factory) for name, factory in LOOPS.items()},
}


@pytest.fixture(params=DRIVERS)
def ask(request: pytest.FixtureRequest) -> Ask:
    """Ask many, by each of the drivers."""
    return DRIVERS[request.param]


@pytest.fixture
def many() -> Iterator[Callable[..., list[ScriptedDaemon]]]:
    """Start a number of daemons, each with its own stratum from 1 on."""
    with ExitStack() as stack:

        def start(number: int, **script: Any) -> list[ScriptedDaemon]:
            return [
                stack.enter_context(
                    ScriptedDaemon(tracking=make_tracking(stratum=index + 1), **script)
                )
                for index in range(number)
            ]

        yield start


@pytest.fixture
def in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists over UDP are read with many requests in flight."""
    monkeypatch.setattr(_queries, "_LONG_READ", -1.0)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are read one by one, but for long ones of this machine."""
    monkeypatch.setattr(_queries, "_LONG_READ", 9e9)


@pytest.fixture(params=["one_by_one", "in_flight"])
def each_way(request: pytest.FixtureRequest) -> None:
    """Lists are read in the one way, and in the other."""
    request.getfixturevalue(request.param)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """The sessions that are opened."""
    made: list[Session] = []
    usual = Session.__init__

    def counting(self: Session, *arguments: Any, **named: Any) -> None:
        made.append(self)
        usual(self, *arguments, **named)

    monkeypatch.setattr(Session, "__init__", counting)
    return made


@pytest.fixture
def one_chronyd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one chronyd run: advice names those that other tests have stopped."""
    monkeypatch.setattr(_advice, "processes", lambda: [(7, "S")])
