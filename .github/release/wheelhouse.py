"""The wheelhouse: all that an installation without a network needs."""

from __future__ import annotations

import re
import shutil
import sys
from itertools import product
from pathlib import Path

from packaging.version import Version
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from . import tools
from .verify import asking

# As uv calls them.
PLATFORMS = (
    *("x86_64-manylinux2014", "aarch64-manylinux2014"),
    *("x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"),
)


def fill(tree: Path, wheel: Path, version: Version, pythons: tuple[str, ...]) -> None:
    """Make a directory from which all these versions of CPython can install."""
    tree.mkdir()
    shutil.copy(wheel, tree)
    lock = (tools.LOCKS / "runtime.txt").read_text()
    requirements = tree / "requirements.txt"
    digest = tools.digests_in(wheel.parent)[wheel.name]
    own = f"{tools.PROJECT}=={version} --hash=sha256:{digest}\n"
    requirements.write_text(lock + own)
    abis = "|".join(python.replace(".", "") for python in pythons)
    wanted = re.compile(rf"-cp({abis})-.*linux.*_(x86_64|aarch64)\.whl|-any\.whl")
    with asking(PYPI_SIMPLE_ENDPOINT) as client:
        for project in {*re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}:
            for package in client.get_project_page(project, timeout=30).packages:
                listed = package.digests.get("sha256", "none") in lock
                if listed and wanted.search(package.filename):
                    client.download_package(package, tree / package.filename)
    nowhere = ("--no-index", f"--find-links={tree}", "--dry-run", "--target=none")
    for one, platform in product(pythons, PLATFORMS):
        there = (f"--python-version={one}", f"--python-platform={platform}")
        tools.install(sys.executable, requirements, *nowhere, *there)
