"""The files of a release, and the manifest that says what they are.

The manifest has the format of sha256sum, so that its users can check with that.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

from . import PROJECT, ReleaseError

MANIFEST = "SHA256SUMS"
ATTESTATION = ".publish.attestation"


@dataclass(frozen=True)
class Release:
    """One sdist and one wheel in a directory, with their digests by name."""

    directory: Path
    digests: Mapping[str, str]
    version: Version
    sdist: Path
    wheel: Path

    def attestations(self) -> list[Path]:
        """The attestation of each file, or none at all."""
        wanted = [self.directory / f"{name}{ATTESTATION}" for name in self.digests]
        found = [path for path in wanted if path.is_file()]
        if found and found != wanted:
            raise ReleaseError(
                f"{self.directory}: only {found[0].name} is there of the attestations; "
                "sign again: delete it and run nox -s attest"
            )
        return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(directory: Path) -> None:
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(directory.iterdir())]
    (directory / MANIFEST).write_text("".join(lines))


def open_release(directory: Path) -> Release:
    """The release in the directory, if it is exactly what its manifest says.

    Every job of a workflow may replace its artifacts, but not the outputs of another
    job: so the build's says the manifest's digest, in RELEASE_MANIFEST.
    """
    try:
        lines = (directory / MANIFEST).read_text().splitlines()
    except FileNotFoundError:
        raise ReleaseError(
            f"{directory} has no {MANIFEST}: build the release with nox -s build"
        ) from None
    expected = os.environ.get("RELEASE_MANIFEST")
    if expected and sha256(directory / MANIFEST) != expected:
        raise ReleaseError(
            f"{directory / MANIFEST} is not the one of the build job: another job has "
            "replaced the artifact; find out which before anything else"
        )
    digests = {name: digest for digest, _, name in (ln.partition("  ") for ln in lines)}
    release = release_of(directory, digests)
    for path in (release.sdist, release.wheel):
        if not path.is_file():
            raise ReleaseError(f"{path} is missing: build again with nox -s build")
        if sha256(path) != digests[path.name]:
            raise ReleaseError(
                f"{path} is not the file that was built: its SHA-256 is not that of "
                f"{MANIFEST}; build again with nox -s build"
            )
    strange = {
        path.name
        for path in directory.iterdir()
        if path.name.removesuffix(ATTESTATION) not in {MANIFEST, *digests}
    }
    if strange:
        raise ReleaseError(
            f"{directory} holds {min(strange)}, which is not in {MANIFEST}: "
            "build again with nox -s build"
        )
    return release


def release_of(directory: Path, digests: Mapping[str, str]) -> Release:
    """Refuse any set of names but one sdist and one wheel for every Python."""
    sdists, wheels, tags = {}, {}, {}
    for name in digests:
        try:
            if name.endswith(".whl"):
                project, wheels[name], build, tags[name] = parse_wheel_filename(name)
            else:
                project, sdists[name] = parse_sdist_filename(name)
                build = ()
        except (InvalidWheelFilename, InvalidSdistFilename):
            raise ReleaseError(f"{name} is neither an sdist nor a wheel") from None
        if project != PROJECT or build:
            raise ReleaseError(f"{name} is no file of a release of {PROJECT}")
    if len(sdists) != 1 or len(wheels) != 1:
        raise ReleaseError(
            f"{directory} has {len(sdists)} sdists and {len(wheels)} wheels, a release "
            "has one of each: build again with nox -s build"
        )
    [(sdist, version)] = sdists.items()
    [(wheel, also)] = wheels.items()
    if version != also:
        raise ReleaseError(f"{sdist} and {wheel} have different versions: build again")
    if {str(tag) for tag in tags[wheel]} != {"py3-none-any"}:
        raise ReleaseError(
            f"{wheel} is for some systems only, so it has compiled code: the wheel of "
            f"{PROJECT} is py3-none-any; take the code out"
        )
    return Release(directory, digests, version, directory / sdist, directory / wheel)
