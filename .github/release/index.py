"""What a package index has of a release."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import requests
from packaging.version import InvalidVersion, Version
from pypi_simple import (
    NoSuchProjectError,
    ProjectPage,
    PyPISimple,
    UnsupportedContentTypeError,
)

from . import PROJECT, ReleaseError, say
from .files import Release, sha256


class UnavailableError(ReleaseError):
    """The index does not answer, list or take something now; it may later."""


def address(variable: str) -> str:
    """The simple index that a variable of the GitHub environment names."""
    found = os.environ.get(variable, "")
    if urlsplit(found).scheme not in {"http", "https"}:
        raise ReleaseError(
            f"{variable} is {found!r}: set it to the address of the simple index, as "
            "a variable of the GitHub environment; docs/releasing.rst says how"
        )
    return found


def patiently(attempt: Callable[[], None]) -> None:
    """Do it again while the index is unavailable, for about five minutes in all."""
    pauses = os.environ.get("RELEASE_PAUSES", "2 8 30 60 90 120")
    for pause in (*map(float, pauses.split()), None):
        try:
            attempt()
            return
        except UnavailableError as error:
            if pause is None:
                raise
            say(f"{error}; next try in {pause:g} s")
            time.sleep(pause)


def missing(release: Release, simple: str) -> list[Path]:
    """The files that the index lacks, if all that it has are the release's own."""
    served = _served(release.version, simple)
    for name, digest in served.items():
        if name not in release.digests:
            raise ReleaseError(
                f"the index has {name}, which is not of this build: somebody else "
                f"uploaded it; release a new version, and yank {release.version}"
            )
        if digest != release.digests[name]:
            raise ReleaseError(
                f"the index has another {name}, SHA-256 {digest}, than was built: a "
                "file is never replaced; release a new version, and find out whose "
                "it is"
            )
    return [path for path in (release.sdist, release.wheel) if path.name not in served]


def download(release: Release, simple: str, directory: Path) -> None:
    """Fetch the files of the release as served; refuse any other bytes."""
    with PyPISimple(simple) as client:
        for package in _page(client, simple).packages:
            if package.filename not in release.digests:
                continue
            target = directory / package.filename
            try:
                # The digest to compare with is ours, not the index's.
                client.download_package(package, target, verify=False)
            except requests.RequestException as error:
                raise _unavailable(simple, error) from None
            if sha256(target) != release.digests[package.filename]:
                raise ReleaseError(
                    f"the index served other bytes of {package.filename} than were "
                    "built: it was tampered with; do not promote, yank the version, "
                    "and tell the index's security team"
                )


def _served(version: Version, simple: str) -> Mapping[str, str]:
    with PyPISimple(simple) as client:
        packages = _page(client, simple).packages
    served = {}
    for package in packages:
        try:
            other = Version(package.version or "")
        except InvalidVersion:
            continue
        if other == version:
            served[package.filename] = package.digests.get("sha256", "unknown")
    return served


def _page(client: PyPISimple, simple: str) -> ProjectPage:
    try:
        # No cache in between may answer: what counts is what there is now.
        return client.get_project_page(
            PROJECT, timeout=30, headers={"Cache-Control": "no-cache"}
        )
    except NoSuchProjectError:
        return ProjectPage(PROJECT, [], None, None)
    except (requests.RequestException, UnsupportedContentTypeError) as error:
        raise _unavailable(simple, error) from None


def _unavailable(simple: str, error: Exception) -> UnavailableError:
    lost = isinstance(error, requests.ConnectionError)
    reason = "no connection" if lost else error
    return UnavailableError(
        f"the index at {simple} does not answer ({reason}): "
        "run this again later, it goes on where it stopped"
    )
