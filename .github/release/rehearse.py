"""Rehearse a release: the jobs of release.yml on this machine, with their scripts."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .runner import Runner
from .tools import BRANCH, TAG, git, run, say

# What an untagged commit becomes in its clone, which nobody ever sees.
VERSION = "9999.0"
INDEXES = ("testpypi", "pypi")
# GitHub's, as if CI were green and a release could be made.
GH = """#!/bin/sh
case "$1 $2" in
"run list") echo "completed success" ;;
"release view") exit 1 ;;
*) echo "GitHub is told: gh $*" ;;
esac
"""
CHANGES = {
    # twine skips what is there already at no other address than it knows.
    '--repository "$INDEX" --skip-existing': (
        '--repository-url "$(printenv "REHEARSAL_$INDEX")"'
    ),
    # It signs with an identity that only GitHub gives.
    ".locked/bin/python -m pypi_attestations sign": (
        """sh -c 'for file; do echo "{}" > "$file.publish.attestation"; done' sign"""
    ),
    ".venv/bin/nox -s docs": "echo not here",
}


def main() -> None:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, indexes(Path(temporary)):
        work = Path(temporary, "work")
        tag = clone(work)
        skipped = runner(work, tag).run(work / ".github/workflows/release.yml")
        uploads = [*Path(temporary).glob("*pypi/*")]
    say(
        f"\nThe rehearsal took {time.monotonic() - begun:.0f} s. "
        f"All {len(uploads)} uploads went to 127.0.0.1, nothing was pushed, and your "
        "repository is as it was.\nNot rehearsed: signing, the pages, Fedora, most of "
        f"the tests; skipped as on GitHub: {', '.join(skipped) or 'nothing'}."
    )


def clone(target: Path) -> str:
    """A private clone of HEAD under a version tag; return the tag."""
    head = git("rev-parse", "HEAD")
    git("clone", "--quiet", "--no-hardlinks", ".", str(target))
    git("-C", str(target), "checkout", "--quiet", "-B", BRANCH, head)
    for tag in filter(TAG.fullmatch, git("tag", "--points-at", head).split()):
        return tag
    # Between the commit of a release and its tag, nothing else is unreleased.
    text = git("show", f"{head}:CHANGELOG.rst")
    if match := re.search(r"^Unreleased\n-+\n+([\d.]+) \(", text, re.MULTILINE):
        git("-C", str(target), "tag", "--force", f"v{match[1]}")
        return f"v{match[1]}"
    say(f"This commit has no version tag: its clone is prepared as {VERSION}.")
    for name in ("user.name", "user.email", "user.signingkey"):
        value = "" if name == "user.signingkey" else "rehearsal"
        git("-C", str(target), "config", name, value)
    step = (sys.executable, "-m", "release", "prepare", VERSION)
    run("env", "-C", str(target), *step, advice="it cannot be prepared")
    return f"v{VERSION}"


def runner(work: Path, tag: str) -> Runner:
    gh = work.parent / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(GH)
    gh.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k[:6] not in ("TWINE_", "GITHUB")}
    env |= {
        "PATH": f"{gh.parent}{os.pathsep}{env['PATH']}",
        # The programs of a job must not be taken for those of this session.
        "PYTHONPATH": "",
        "VIRTUAL_ENV": "",
        "GIT_CONFIG_GLOBAL": str(work.parent / "gitconfig"),
        "GITHUB_REF_NAME": tag,
        "GITHUB_REPOSITORY": "nobody/pychrony",
        "GITHUB_WORKSPACE": str(work),
        "TWINE_USERNAME": "nobody",
        "TWINE_PASSWORD": "nothing",
        # A part suffices to see that it is the wheel that is tested.
        "PYTEST_ADDOPTS": "tests/core/test_models.py",
    }
    context = {
        "github.repository": "nobody/pychrony",
        "github.token": "none",
        "matrix.python": ".".join(map(str, sys.version_info[:2])),
    }
    return Runner(work, context, env, CHANGES)


@contextmanager
def indexes(place: Path) -> Iterator[None]:
    """Two empty ones, which `verify` asks: directories that pypiserver serves."""
    with ExitStack() as stack:
        for name in INDEXES:
            os.environ[f"REHEARSAL_{name}"] = stack.enter_context(index(place / name))
            stack.callback(os.environ.pop, f"REHEARSAL_{name}")
        yield


@contextmanager
def index(directory: Path) -> Iterator[str]:
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    options = f"-i 127.0.0.1 -p {address[1]} -a . -P . --disable-fallback"
    command = (sys.executable, "-m", "pypiserver", "run", *options.split())
    with subprocess.Popen([*command, str(directory)], stderr=subprocess.DEVNULL) as one:
        try:
            with socket.socket() as asked:
                while asked.connect_ex(address):
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{address[1]}/"
        finally:
            one.terminate()
