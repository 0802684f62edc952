"""Add an archive to dist/ with all that an installation without a network needs."""

from __future__ import annotations

import re
import sys
import tempfile
from itertools import product
from pathlib import Path

import requests
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from pypi_simple import PyPISimple

from . import build, tools
from .tools import DIST, PROJECT, ReleaseError, distributions, say, tagged_version

PLATFORM = re.compile(r"(many|musl)linux.*_(x86_64|aarch64)")


def main(*pythons: str) -> None:
    """For these versions of CPython; prove that this one installs from it."""
    version, digests = tagged_version(), tools.read_manifest()
    lock = (tools.LOCKS / "runtime.txt").read_text()
    interpreters = ["cp" + python.replace(".", "") for python in pythons]
    wanted = {*product(interpreters, ("many", "musl"), ("x86_64", "aarch64"))}
    # As an sdist is called, since pypi-attestations signs nothing else.
    name = f"{PROJECT}_wheelhouse-{version}"
    _, wheel = distributions(version)
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary)
        (tree / wheel).write_bytes((DIST / wheel).read_bytes())
        own = f"{PROJECT}=={version} --hash=sha256:{digests[wheel]}\n"
        requirements = tree / "requirements.txt"
        requirements.write_text(lock + own)
        for project in {*re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}:
            try:
                wanted -= fetch(project, lock, interpreters, tree)
            except requests.RequestException as error:
                kind = type(error).__name__
                raise ReleaseError(
                    f"cannot fetch {project} from pypi: {kind}"
                ) from None
        if wanted:
            raise ReleaseError(
                f"the lock has no wheel for {' '.join(min(wanted))}: make it anew with "
                "nox -s lock, or drop what has none any more"
            )
        python = tools.environment(tree / "environment", sys.executable, "runtime")
        tools.install(python, "--no-index", "-f", temporary, "-r", str(requirements))
        files = [path for path in tree.iterdir() if path.is_file()]
        packed = [(f"{name}/{path.name}", path.read_bytes(), False) for path in files]
    build.pack(DIST / f"{name}.tar.gz", packed, build.commit_time())
    tools.write_manifest(DIST)
    say(f"{name}.tar.gz: {len(files) - 1} wheels")


def fetch(
    project: str, lock: str, interpreters: list[str], target: Path
) -> set[tuple[str, str, str]]:
    """Download its wheels that the lock lists; return what they are for."""
    found = set()
    with PyPISimple() as client:
        for package in client.get_project_page(project, timeout=30).packages:
            if package.digests.get("sha256", "none") not in lock:
                continue
            try:
                *_, tags = parse_wheel_filename(package.filename)
            except InvalidWheelFilename:
                continue
            fits = {
                (tag.abi, match[1], match[2])
                for tag in tags
                if tag.abi in interpreters and (match := PLATFORM.match(tag.platform))
            }
            if fits or any(tag.platform == "any" for tag in tags):
                client.download_package(package, target / package.filename)
            found |= fits
    return found
