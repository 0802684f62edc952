"""Sign the files of a release with the identity of the job that runs this."""

from __future__ import annotations

import subprocess
import sys

from . import ReleaseError
from .files import Release


def attest(release: Release) -> None:
    command = (sys.executable, "-m", "pypi_attestations", "sign")
    files = map(str, (release.sdist, release.wheel))
    if subprocess.run([*command, *files], check=False).returncode:
        raise ReleaseError(
            "the files could not be signed: the reason is above; only release.yml on "
            "GitHub signs, in a job with `permissions: id-token: write`"
        )
