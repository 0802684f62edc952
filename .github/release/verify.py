"""Whether an index serves what was built, and whether that installs and works."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pypi_simple
from packaging.version import Version
from requests import RequestException
from twine.utils import TEST_REPOSITORY

from . import tools
from .tools import DIST, PROJECT, ReleaseError, run

# By the names that twine has for them.
INDEXES = {
    "testpypi": TEST_REPOSITORY.replace("/legacy/", "/simple/"),
    "pypi": pypi_simple.PYPI_SIMPLE_ENDPOINT,
}
# In seconds: an index may list a file some minutes after its upload.
PAUSES = (2, 8, 30, 60, 90, 120)


def main(index: str) -> None:
    version, digests = tools.tagged_version(), tools.read_manifest()
    pauses = iter(PAUSES)
    while lacking := missing(index, version, digests):
        if not (pause := next(pauses, None)):
            raise ReleaseError(
                f"{lacking}: if it was uploaded, re-run this later; a file that was "
                "deleted there never comes back, so then release a new version"
            )
        print(f"{lacking}; next look in {pause} s")
        time.sleep(pause)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        with asking(address(index)) as client:
            for package in served(index):
                if package.filename in digests:
                    client.download_package(package, place / package.filename)
        # What it needs is in the wheelhouse: on that index anybody can have any name.
        *_, wheelhouse = tools.distributions(version)
        others = ("--strip-components=1", f"--exclude=*/{PROJECT}-*")
        unpack = ("tar", "-C", temporary, *others, "-xf", str(DIST / wheelhouse))
        run(*unpack, advice=f"{wheelhouse} cannot be unpacked")
        own = (place / "requirements.txt", "--no-index", f"--find-links={place}")
        python = tools.environment(place / "environment", sys.executable, *own)
        smoke = str(Path(__file__).with_name("smoke.py"))
        advice = f"{PROJECT} {version} of {index} does not work: do not approve it"
        run(python, "-I", smoke, str(version), advice=advice)
    print(f"{index}: {PROJECT} {version} is what was built, installs and works")


def address(index: str) -> str:
    """The simple index; those of the rehearsal are on loopback."""
    rehearsed = os.environ.get(f"REHEARSAL_{index}")
    return f"{rehearsed}simple/" if rehearsed else INDEXES[index]


@contextmanager
def asking(address: str) -> Iterator[pypi_simple.PyPISimple]:
    """A client of an index: it is offline, down, or serves what it does not list."""
    errors = (pypi_simple.DigestMismatchError, pypi_simple.UnsupportedContentTypeError)
    try:
        with pypi_simple.PyPISimple(address) as client:
            # No cache in between may answer: what counts is what there is now.
            client.s.headers["Cache-Control"] = "no-cache"
            yield client
    except (RequestException, *errors) as error:
        raise ReleaseError(f"{address} cannot be used: {error}") from None


def served(index: str) -> list[pypi_simple.DistributionPackage]:
    """All that the index lists of this project; nothing if it has no such project."""
    with asking(address(index)) as client:
        try:
            return client.get_project_page(PROJECT, timeout=30).packages
        except pypi_simple.NoSuchProjectError:
            return []


def missing(index: str, version: Version, digests: Mapping[str, str]) -> str:
    """What the index lacks of a release, in words; refuse other files of it."""
    packages = served(index)
    lacking = {*tools.distributions(version)[:2]}
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
