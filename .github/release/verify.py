"""Whether an index serves what was built, and whether that installs and works."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import requests
from packaging.version import Version
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    DigestMismatchError,
    DistributionPackage,
    NoSuchProjectError,
    PyPISimple,
    UnsupportedContentTypeError,
)
from twine.utils import TEST_REPOSITORY

from . import tools
from .tools import PROJECT, ReleaseError, distributions, say

# By the names that twine has for them.
INDEXES = {
    "testpypi": TEST_REPOSITORY.replace("/legacy/", "/simple/"),
    "pypi": PYPI_SIMPLE_ENDPOINT,
}
# In seconds: an index may list a file some minutes after its upload.
PAUSES = (2, 8, 30, 60, 90, 120)


def main(index: str) -> None:
    version, digests = tools.tagged_version(), tools.read_manifest()
    for pause in PAUSES:
        if not (lacking := missing(index, version, digests)):
            break
        say(f"{lacking}; next look in {pause} s")
        time.sleep(pause)
    if lacking := missing(index, version, digests):
        raise ReleaseError(
            f"{lacking}: if it was uploaded, re-run this later; a file that was "
            "deleted there never comes back, so then release a new version"
        )
    with tempfile.TemporaryDirectory() as temporary:
        install(index, version, digests, Path(temporary))
    say(f"{index}: {PROJECT} {version} is what was built, installs and works")


def install(
    index: str, version: Version, digests: Mapping[str, str], place: Path
) -> None:
    """Only our own files come from that index, where anybody can have any name."""
    for package in served(index):
        if package.filename in digests:
            try:
                with PyPISimple() as client:
                    client.download_package(package, place / package.filename)
            except DigestMismatchError:
                raise ReleaseError(
                    f"{index} serves other bytes of {package.filename} than it "
                    "lists: do not approve, and tell the index's security team"
                ) from None
    hashes = [f"--hash=sha256:{digests[name]}" for name in distributions(version)]
    requirement = place / "requirements.txt"
    requirement.write_text(f"{PROJECT}=={version} {' '.join(hashes)}\n")
    python = tools.environment(place / "environment", sys.executable, "runtime")
    # No index but this one, whatever the machine is configured to add.
    alone = {key: value for key, value in os.environ.items() if key[:3] != "UV_"}
    own = ("--no-config", "--no-deps", "--no-cache", "--index-url", address(index))
    tools.install(python, *own, "-r", str(requirement), env=alone)
    smoke = str(Path(__file__).with_name("smoke.py"))
    advice = f"{PROJECT} {version} of {index} does not work: do not approve it, yank it"
    tools.run(str(python), "-I", smoke, str(version), advice=advice)


def address(index: str) -> str:
    """The simple index; those of the rehearsal are on loopback."""
    rehearsed = os.environ.get(f"REHEARSAL_{index}")
    return f"{rehearsed}simple/" if rehearsed else INDEXES[index]


def served(index: str) -> list[DistributionPackage]:
    """All that the index lists of this project; nothing if it has no such project."""
    # No cache in between may answer: what counts is what there is now.
    fresh = {"Cache-Control": "no-cache"}
    try:
        with PyPISimple(address(index)) as client:
            return client.get_project_page(PROJECT, timeout=30, headers=fresh).packages
    except NoSuchProjectError:
        return []
    except (requests.RequestException, UnsupportedContentTypeError) as error:
        lost = isinstance(error, requests.ConnectionError)
        raise ReleaseError(
            f"{index} cannot be asked what it has: "
            f"{'there is no connection, try where there is one' if lost else error}"
        ) from None


def missing(index: str, version: Version, digests: Mapping[str, str]) -> str:
    """What the index lacks of a release, in words; refuse other files of it."""
    packages = served(index)
    lacking = {*distributions(version)}
    for package in packages:
        name, found = package.filename, package.digests.get("sha256")
        if package.version == str(version) and digests.get(name) != found:
            raise ReleaseError(
                f"{index} has another {name} than was built, SHA-256 {found}: no file "
                "is ever replaced; release a new version, and find out whose it is"
            )
        lacking.discard(name)
    if not packages:
        return f"{index} has no project {PROJECT}"
    return f"{index} does not list {min(lacking)}" if lacking else ""
