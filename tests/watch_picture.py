"""Picture the live view for the docs: docs/watch.svg and docs/watch-light.svg.

The clock is the client of a little NTP network of real daemons on loopback.
"""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import ExitStack
from pathlib import Path

import provision
from chronyd import Chronyd
from demo import start

DOCS = Path(__file__).parents[1] / "docs"
SIZE = (110, 30)
INTERVAL = 0.2

# Its directory has another name each time, which is not for the picture.
NAME = Path("/tmp/demo")

# One that disagrees with the others, one that is not there.
UNUSABLE = (
    "server 127.0.0.1 port {port} iburst minpoll -6 maxpoll -2 offset 0.002\n"
    "server 127.0.0.9 port 9 iburst\n"
)


def main() -> None:
    parts = provision.parts()
    os.environ.update(provision.environment(parts))
    with ExitStack() as network:
        client = start(parts, network, UNUSABLE)
        NAME.symlink_to(client.directory)
        network.callback(NAME.unlink)
        asyncio.run(picture(client))


async def picture(client: Chronyd) -> None:
    # libchrony is looked for when these are imported: not before it was provided.
    from pychrony import AsyncChronyConnection
    from pychrony.watch._follow import follow
    from pychrony.watch._screen import LiveView

    connection = AsyncChronyConnection(f"{NAME}/chronyd.sock")
    screen = LiveView(connection, follow(connection, INTERVAL))
    async with screen.run_test(size=SIZE) as pilot:
        await asyncio.sleep(14)
        client.kill()
        await asyncio.sleep(2)
        await asyncio.to_thread(client.restart)
        await asyncio.sleep(14)
        for name, key in (("watch.svg", "t"), ("watch-light.svg", "t")):
            save(name, screen.export_screenshot())
            await pilot.press(key)
            await pilot.pause(2 * INTERVAL)


def save(name: str, picture: str) -> None:
    # It names fonts of a foreign host, which pages do not load for a picture.
    own = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.S)
    lines = (line.rstrip() for line in own.splitlines())
    (DOCS / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
