"""Whether an index serves what was built, and whether that installs and works."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from . import PROJECT, ReleaseError, index, say
from .files import Release

RUNTIME = Path(__file__).with_name("runtime.txt")
SMOKE = Path(__file__).with_name("smoke.py")


def verify(release: Release, name: str) -> None:
    simple = index.address("SIMPLE_INDEX")

    def demand_all() -> None:
        lacking = index.missing(release, simple)
        if lacking:
            raise index.UnavailableError(
                f"{name} does not list {lacking[0].name}: publish it, or run this "
                "again later if it was"
            )

    index.patiently(demand_all)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        index.download(release, simple, place)
        say(f"{name} serves the bytes that were built")
        install(release, simple, place)
    say(f"{name}: {PROJECT} {release.version} installs by its digest and works")


def install(release: Release, simple: str, place: Path) -> None:
    """Only our own files come from that index, where anybody can have any name."""
    hashes = [f"--hash=sha256:{digest}" for digest in release.digests.values()]
    requirement = place / "requirements.txt"
    requirement.write_text(f"{PROJECT}=={release.version} {' '.join(hashes)}\n")
    environment = place / "environment"
    python = str(environment / "bin" / "python")
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    own = ("--no-deps", "--require-hashes", "--only-binary", ":all:")
    # No index but this one, whatever the machine is configured to add.
    alone = {key: value for key, value in os.environ.items() if key[:4] != "PIP_"}
    alone["PIP_CONFIG_FILE"] = os.devnull
    for command, env in (
        ((sys.executable, "-m", "venv", str(environment)), None),
        ((*pip, "--require-hashes", "-r", str(RUNTIME)), None),
        ((*pip, *own, "--index-url", simple, "-r", str(requirement)), alone),
        ((python, "-I", str(SMOKE), str(release.version)), None),
    ):
        if subprocess.run(command, env=env, check=False).returncode:
            raise ReleaseError(
                f"{PROJECT} {release.version} of {simple} does not install or work: "
                "its reason is above; do not promote it, yank it if it was"
            )
