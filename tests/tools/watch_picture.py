"""Picture the live view in tmux, for docs/watch*.svg.

The clocks are those of a little NTP network of real daemons on loopback.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import provision
from demo import start
from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).parents[2] / "docs"

# Its directory has another name each time, which is not for the picture.
NAME = Path("/tmp/demo")

# One that disagrees with the others, one that is not there.
UNUSABLE = (
    "server 127.0.0.1 port {port} iburst minpoll -6 maxpoll -2 offset 0.002\n"
    "server 127.0.0.9 port 9 iburst\n"
)


def main() -> None:
    parts = provision.provide()
    with ExitStack() as network:
        client, other = start(parts, network, UNUSABLE), start(parts, network)
        NAME.symlink_to(client.directory)
        network.callback(NAME.unlink)
        socket = f"{NAME}/chronyd.sock"
        view("large", 110, 30, socket)
        network.callback(tmux, "kill-server")
        view("small", 40, 10, socket)
        view("hosts", 80, 6, socket, other.address, "127.0.0.9:323")
        time.sleep(14)
        client.kill()
        time.sleep(2)
        client.restart()
        time.sleep(14)
        press("large", "Down", "Down", "Down", "Down")
        save("large", "watch.svg")
        press("large", "t")
        save("large", "watch-light.svg")
        save("small", "watch-small.svg")
        press("hosts", "Down")
        save("hosts", "watch-hosts.svg")


def tmux(*command: str) -> str:
    """Run a command of a tmux server of its own, without anybody's settings."""
    return subprocess.check_output(
        ["tmux", "-f", "/dev/null", "-L", "pychrony", *command],
        env={**os.environ, "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"},
        text=True,
    )


def view(name: str, width: int, height: int, *addresses: str) -> None:
    """Start the live view in a terminal of this size."""
    size = ("-x", str(width), "-y", str(height))
    command = (sys.executable, "-m", "pychrony.watch", "-i0.2", *addresses)
    tmux("new-session", "-d", "-s", name, *size, *command)


def press(name: str, *keys: str) -> None:
    tmux("send-keys", "-t", name, *keys)
    time.sleep(1)


def save(name: str, file: str) -> None:
    """Save what the terminal shows."""
    shown = tmux("capture-pane", "-t", name, "-e", "-p", "-N")
    width = int(tmux("display-message", "-t", name, "-p", "#{window_width}"))
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(Text.from_ansi(shown), end="")
    picture = console.export_svg(title="python -m pychrony.watch")
    # It names fonts of a foreign host, which pages do not load for a picture.
    own = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.S)
    lines = (line.rstrip() for line in own.splitlines())
    (DOCS / file).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
