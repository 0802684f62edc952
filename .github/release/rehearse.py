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
PROGRAMS = {
    # GitHub's, as if CI were green and a release could be made.
    "gh": """#!/bin/sh
case "$1 $2" in
"run list") echo '[{"status": "completed", "conclusion": "success", "url": ""}]' ;;
"release view") exit 1 ;;
*) echo "GitHub is told: gh $*" ;;
esac
""",
    # twine skips what is there already only at the addresses that it knows.
    "sitecustomize.py": """import contextlib, os
with contextlib.suppress(ImportError, KeyError):
    import twine.repository
    twine.repository.TEST_WAREHOUSE = os.environ["TWINE_REPOSITORY_URL"]
""",
}
SIGN = """for file in dist/*.whl dist/*.gz; do
  echo '{}' > "$file.publish.attestation"
done"""
INSTEAD = {
    ("sign", "pip install"): ":",
    ("sign", "pypi_attestations"): SIGN,
    ("docs", "nox"): "mkdir -p docs/_build/html",
    ("pypi", "pip install"): ":",  # as for testpypi, and still there
}


def main() -> None:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        place = Path(temporary)
        ports = {
            name: stack.enter_context(index(place / name))
            for name in ("testpypi", "pypi")
        }
        os.environ["REHEARSAL_PORTS"] = " ".join(f"{k}={v}" for k, v in ports.items())
        tag = clone(place / "clone")
        results = runner(place, tag, ports).run(Path(".github/workflows/release.yml"))
        uploads = [path.name for name in ports for path in (place / name).iterdir()]
    done = [name for name, result in results.items() if result == "success"]
    say(
        f"\nThe rehearsal took {time.monotonic() - begun:.0f} s: {', '.join(done)}.\n"
        f"All {len(uploads)} uploads went to 127.0.0.1, nothing was pushed, and your "
        "repository is as it was.\nNot rehearsed: signing, the pages, Fedora, and most "
        f"of the tests; {', '.join(sorted({*results} - {*done})) or 'nothing'} skipped."
    )


def clone(target: Path) -> str:
    """A private clone with HEAD under a version tag; return the tag."""
    head = git("rev-parse", "HEAD")
    git("clone", "--quiet", "--no-hardlinks", ".", str(target))
    for tag in git("tag", "--points-at", head).split():
        if TAG.fullmatch(tag):
            return tag
    # Between the commit of a release and its tag, nothing else is unreleased.
    text = git("show", f"{head}:CHANGELOG.rst")
    if match := re.search(r"^Unreleased\n-+\n+([\d.]+) \(", text, re.MULTILINE):
        say(f"This commit has no version tag: its clone gets v{match[1]}.")
        git("-C", str(target), "tag", "--force", f"v{match[1]}", head)
        return f"v{match[1]}"
    say(f"This commit has no version tag: its clone is prepared as {VERSION}.")
    git("-C", str(target), "checkout", "--quiet", "-B", BRANCH, head)
    for name in ("user.name", "user.email"):
        git("-C", str(target), "config", name, "rehearsal")
    git("-C", str(target), "config", "user.signingkey", "")
    step = (sys.executable, "-m", "release", "prepare", VERSION)
    run("env", "-C", str(target), *step, advice="it cannot be prepared")
    return f"v{VERSION}"


def runner(place: Path, tag: str, ports: dict[str, str]) -> Runner:
    for name, text in PROGRAMS.items():
        program = place / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k[:6] not in ("TWINE_", "GITHUB")}
    env |= {
        "PATH": f"{place / 'bin'}{os.pathsep}{env['PATH']}",
        "PYTHONPATH": str(place / "bin"),
        # The programs of a job must not be taken for those of this session.
        "VIRTUAL_ENV": "",
        "GIT_CONFIG_GLOBAL": str(place / "gitconfig"),
        "GITHUB_REF_NAME": tag,
        "GITHUB_REPOSITORY": "nobody/pychrony",
        "GITHUB_WORKSPACE": str(place / "work"),
        "TWINE_USERNAME": "nobody",
        "TWINE_PASSWORD": "nothing",
        # A part suffices to see that it is the wheel that is tested.
        "PYTEST_ADDOPTS": "tests/core/test_models.py",
    }
    instead = dict(INSTEAD)
    for name, port in ports.items():
        address = f"export TWINE_REPOSITORY_URL=http://127.0.0.1:{port}/"
        instead[name, "twine upload"] = f"{address}\n"
    github = {"ref_name": tag, "repository": "nobody/pychrony", "token": "none"}
    matrix = {"python": ".".join(map(str, sys.version_info[:2])), "runner": "here"}
    return Runner(place / "clone", place, github, matrix, env, instead)


@contextmanager
def index(directory: Path) -> Iterator[str]:
    """pypiserver on a port of 127.0.0.1, for one index."""
    directory.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("-i", "127.0.0.1", "-p", str(port), "-a", ".", "-P", ".")
    command = ("-m", "pypiserver", "run", *options, "--disable-fallback")
    with subprocess.Popen(
        [sys.executable, *command, str(directory)], stderr=subprocess.DEVNULL
    ) as process:
        try:
            while True:
                with socket.socket() as asked:
                    if not asked.connect_ex(("127.0.0.1", port)):
                        break
                time.sleep(0.05)
            yield str(port)
        finally:
            process.terminate()
