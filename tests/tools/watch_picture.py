"""Picture the live view in tmux for docs/watch.svg and docs/watch-light.svg.

The clock is the client of a little NTP network of real daemons on loopback.
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
WIDTH, HEIGHT = 110, 30

# Its directory has another name each time, which is not for the picture.
NAME = Path("/tmp/demo")

COMMAND = [sys.executable, "-m", "pychrony.watch", "-i0.2", f"{NAME}/chronyd.sock"]

# One that disagrees with the others, one that is not there.
UNUSABLE = (
    "server 127.0.0.1 port {port} iburst minpoll -6 maxpoll -2 offset 0.002\n"
    "server 127.0.0.9 port 9 iburst\n"
)


def main() -> None:
    parts = provision.provide()
    with ExitStack() as network:
        client = start(parts, network, UNUSABLE)
        NAME.symlink_to(client.directory)
        network.callback(NAME.unlink)
        tmux("new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), *COMMAND)
        network.callback(tmux, "kill-server")
        time.sleep(14)
        client.kill()
        time.sleep(2)
        client.restart()
        time.sleep(14)
        save("watch.svg")
        tmux("send-keys", "t")
        time.sleep(1)
        save("watch-light.svg")
        tmux("send-keys", "q")


def tmux(*command: str) -> str:
    """Run a command of a tmux server of its own, without anybody's settings."""
    return subprocess.check_output(
        ["tmux", "-f", "/dev/null", "-L", "pychrony", *command],
        env={**os.environ, "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"},
        text=True,
    )


def save(name: str) -> None:
    """Save what the terminal shows."""
    shown = tmux("capture-pane", "-e", "-p", "-N")
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(shown), end="")
    picture = console.export_svg(title="python -m pychrony.watch")
    # It names fonts of a foreign host, which pages do not load for a picture.
    own = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.S)
    lines = (line.rstrip() for line in own.splitlines())
    (DOCS / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
