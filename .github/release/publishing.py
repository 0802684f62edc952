"""Upload a release to an index that twine knows, by trusted publishing alone."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import ReleaseError, index, run_quietly, say
from .files import Release, release_of

# The first index is where everything lands, the second where a person promotes to.
TEST, REAL = INDEXES = ("testpypi", "pypi")
WORKFLOW = "release.yml"

# What twine says of failures that waiting does not mend: what a maintainer has
# to do. {index} is its name, {repository} the one on GitHub.
EXPLANATIONS = {
    "insufficient OIDC token permissions": "the job may not ask GitHub who it is: "
    "give it `permissions: id-token: write` in release.yml",
    "invalid-pending-publisher": "{index} has a pending publisher of another project "
    "name: register pychrony there, see docs/releasing.rst",
    "invalid-publisher": "{index} knows no trusted publisher like this job: on the "
    "project's publishing page there, register owner and repository {repository}, "
    "workflow release.yml, environment {index}; and let the job run in the "
    "environment {index}",
    "not-enabled": "{index} has trusted publishing switched off for now: "
    "see its status page and run this again later",
    "HTTPError: 403": "{index} does not let this trusted publisher upload: "
    "register it for the project pychrony, see docs/releasing.rst",
    "HTTPError: 4": "{index} refuses the upload: its reason is above",
}


def publish(release: Release, name: str) -> None:
    if name != TEST:
        raise ReleaseError(
            f"publish uploads to {TEST} alone: a release gets to {REAL} "
            f"with nox -s promote -- {REAL}"
        )
    _publish(release, name)


def promote(release: Release, name: str) -> None:
    """Upload to the real index the bytes that the test index serves."""
    if name != REAL:
        raise ReleaseError(
            f"promote uploads to {REAL} alone: use nox -s publish -- {TEST}"
        )
    if release.version.is_prerelease:
        raise ReleaseError(
            f"{release.version} is a pre-release, and these stop at {TEST}: "
            "release the final version"
        )
    source = index.address("PROMOTE_FROM")
    lacking = index.missing(release, source)
    if lacking:
        raise ReleaseError(
            f"{TEST} does not have {lacking[0].name}: publish there first, "
            f"nox -s publish -- {TEST}"
        )
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        index.download(release, source, directory)
        for attestation in release.attestations():
            (directory / attestation.name).write_bytes(attestation.read_bytes())
        served = release_of(directory, release.digests)
        _publish(served, name)


def _publish(release: Release, name: str) -> None:
    simple = index.address("SIMPLE_INDEX")

    def attempt() -> None:
        lacking = index.missing(release, simple)
        for path in lacking:
            say(f"uploading {path.name} to {name}")
        if lacking:
            _upload(release, lacking, name)
        else:
            say(f"{name} has {release.version} already, with the same digests")

    index.patiently(attempt)


def _upload(release: Release, paths: Sequence[Path], name: str) -> None:
    # No token, password or keyring: whoever has one could upload from anywhere.
    env = {key: value for key, value in os.environ.items() if key[:6] != "TWINE_"}
    env["NO_COLOR"] = "1"
    env["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
    if not env.get("GITHUB_ACTIONS"):
        raise ReleaseError(
            f"only {WORKFLOW} on GitHub uploads to {name}: push the tag, and it does"
        )
    attestations = release.attestations()
    result = run_quietly(
        *(sys.executable, "-m", "twine", "upload", "--repository", name),
        *("--config-file", os.devnull, "--non-interactive", "--verbose"),
        *("--disable-progress-bar", *(["--attestations"] if attestations else [])),
        *map(str, (*paths, *attestations)),
        env=env,
    )
    if not result.returncode:
        return
    # What of twine's own code it came from helps nobody.
    before, _, trace = result.stdout.partition("Traceback (most recent call last)")
    say(before + "".join(trace.rstrip().splitlines()[-1:]))
    text = " ".join(result.stdout.split())
    if "already exist" in text:
        # Maybe a reply got lost and twine itself has tried again.
        raise index.UnavailableError(
            f"{name} has or had a file of this name; if it never lists it, that was "
            "deleted, and a name is never used twice: release a new version"
        )
    for symptom, advice in EXPLANATIONS.items():
        if symptom in text:
            repository = os.environ.get("GITHUB_REPOSITORY", "of this project")
            raise ReleaseError(advice.format(index=name, repository=repository))
    raise index.UnavailableError(f"the upload to {name} was interrupted")
