"""Add an archive to dist/ with all that an installation without a network needs."""

from __future__ import annotations

import re
import sys
import tempfile
from itertools import product
from pathlib import Path

import requests
from pypi_simple import PyPISimple

from . import build, tools
from .tools import DIST, PROJECT, ReleaseError

# As uv calls them.
PLATFORMS = (
    *("x86_64-manylinux2014", "aarch64-manylinux2014"),
    *("x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"),
)


def main(*pythons: str) -> None:
    """For these versions of CPython; prove that each of them installs from it."""
    version, digests = tools.tagged_version(), tools.read_manifest()
    lock = (tools.LOCKS / "runtime.txt").read_text()
    # As an sdist is called, since pypi-attestations signs nothing else.
    name = f"{PROJECT}_wheelhouse-{version}"
    _, wheel = tools.distributions(version)
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary)
        (tree / wheel).write_bytes((DIST / wheel).read_bytes())
        requirements = tree / "requirements.txt"
        own = f"{PROJECT}=={version} --hash=sha256:{digests[wheel]}\n"
        requirements.write_text(lock + own)
        fetch(lock, pythons, tree)
        files = [(f"{name}/{p.name}", p.read_bytes(), False) for p in tree.iterdir()]
        python = tools.environment(tree / "environment", sys.executable)
        own_only = ("--no-index", "-f", temporary, "-r", str(requirements))
        tools.install(python, *own_only)
        for one, platform in product(pythons, PLATFORMS):
            there = ("--python-version", one, "--python-platform", platform)
            nowhere = ("--dry-run", "--target", f"{temporary}/none")
            tools.install(python, *there, *nowhere, *own_only)
    build.pack(DIST / f"{name}.tar.gz", files)
    tools.write_manifest(DIST)
    tools.say(f"{name}.tar.gz: {len(files) - 1} wheels")


def fetch(lock: str, pythons: tuple[str, ...], target: Path) -> None:
    """Download the wheels for Linux that the lock lists."""
    abis = "|".join(python.replace(".", "") for python in pythons)
    wanted = re.compile(rf"-cp({abis})-.*linux.*_(x86_64|aarch64)\.whl|-any\.whl")
    try:
        with PyPISimple() as client:
            for project in {*re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}:
                for package in client.get_project_page(project, timeout=30).packages:
                    listed = package.digests.get("sha256", "none") in lock
                    if listed and wanted.search(package.filename):
                        client.download_package(package, target / package.filename)
    except requests.RequestException as error:
        reason = type(error).__name__
        text = (
            f"what the lock lists cannot be downloaded: {reason}; is there a network?"
        )
        raise ReleaseError(text) from None
