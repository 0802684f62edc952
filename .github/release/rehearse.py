"""Rehearse a release: the jobs of release.yml on this machine, with their scripts."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from .tools import BRANCH, PROJECT, ReleaseError, git, run, version_tags
from .verify import INDEXES

# What an untagged commit becomes in its clone, which nobody ever sees.
VERSION = "9999.0"
# GitHub's, as if CI were green and a release could be made.
GH = """#!/bin/sh
case "$1 $2" in
"run list") echo "completed success" ;;
"release view") exit 1 ;;
*) echo "GitHub is told: gh $*" ;;
esac
"""
# What is different here in the texts of the scripts.
CHANGES = {
    # twine skips what is there already at no other address than it knows.
    '--repository "$INDEX" --skip-existing': (
        '--repository-url "$(printenv "REHEARSAL_$INDEX")"'
    ),
    # It signs with an identity that only GitHub gives.
    ".locked/bin/python -m pypi_attestations sign": (
        """sh -c 'for file; do echo "{}" > "$file.publish.attestation"; done' sign"""
    ),
    ".venv/bin/nox -s docs": "echo not here",
}


def main() -> None:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        with indexes(place) as addresses:
            os.environ.update(addresses)
            Machine(place, clone(place / "work")).run()
        uploads = len([*place.glob("*pypi/*")])
    print(
        f"\nThe rehearsal took {time.monotonic() - begun:.0f} s. All {uploads} uploads "
        "went to 127.0.0.1, nothing was pushed, and your repository is as it was.\n"
        "Not rehearsed: signing, the pages, Fedora, most of the tests."
    )


def clone(target: Path) -> str:
    """A private clone of HEAD under a version tag; return the tag."""
    head = git("rev-parse", "HEAD")
    user = ("-cuser.name=nobody", "-cuser.email=nobody", "-cuser.signingkey=")
    git("clone", "--quiet", "--no-hardlinks", *user, ".", str(target))
    git("-C", str(target), "checkout", "--quiet", "-B", BRANCH, head)
    tags = version_tags()
    # Between the commit of a release and its tag, nothing else is unreleased.
    text = git("show", f"{head}:CHANGELOG.rst")
    if released := re.search(r"^Unreleased\n-+\n+([\d.]+) \(", text, re.MULTILINE):
        tags.append(f"v{released[1]}")
    for tag in tags:
        git("-C", str(target), "tag", "--force", tag)
        return tag
    print(f"This commit has no version tag: its clone is prepared as {VERSION}.")
    step = (sys.executable, "-m", "release", "prepare", VERSION)
    run(*step, cwd=target, advice="it cannot be prepared")
    return f"v{VERSION}"


@contextmanager
def indexes(place: Path) -> Iterator[dict[str, str]]:
    """Two empty ones, which are directories; yield what tells `verify` of them."""
    addresses = {}
    with ExitStack() as stack:
        for name in INDEXES:
            directory = place / name
            directory.mkdir()
            with socket.create_server(("127.0.0.1", 0)) as free:
                _, port = free.getsockname()
            options = f"-i 127.0.0.1 -p {port} -a . -P . --disable-fallback {directory}"
            command = (sys.executable, "-m", "pypiserver", "run", *options.split())
            server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            stack.enter_context(server)
            stack.callback(server.terminate)
            with socket.socket() as asked:
                while asked.connect_ex(("127.0.0.1", port)):
                    time.sleep(0.05)
            addresses[f"REHEARSAL_{name}"] = f"http://127.0.0.1:{port}/"
        yield addresses


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def flat(steps: list[Any], root: Path) -> Iterator[Any]:
    """The steps, with those of the actions of this repository in their places."""
    for step in steps:
        if not step.get("uses", "").startswith("./"):
            yield step
            continue
        text = (root / step["uses"] / "action.yml").read_text()
        for name, value in step.get("with", {}).items():
            text = text.replace(f"${{{{ inputs.{name} }}}}", value)
        yield from flat(yaml.safe_load(text)["runs"]["steps"], root)


class Machine:
    """What GitHub does with a workflow, as far as the scripts notice it.

    Whether a job may run is for test_release_workflows.py: here all do, in the order of
    the file, but those in containers.
    """

    def __init__(self, place: Path, tag: str) -> None:
        self.place, self.work, self.changes = place, place / "work", CHANGES
        gh = place / "bin" / "gh"
        gh.parent.mkdir()
        gh.write_text(GH)
        gh.chmod(0o755)
        self.env = {
            **os.environ,
            "PATH": f"{gh.parent}{os.pathsep}{os.environ['PATH']}",
            # The programs of a job must not be taken for those of this session.
            "PYTHONPATH": "",
            "VIRTUAL_ENV": "",
            "GIT_CONFIG_GLOBAL": str(place / "gitconfig"),
            "GITHUB_OUTPUT": str(place / "output"),
            "GITHUB_REF_NAME": tag,
            "GITHUB_REPOSITORY": f"nobody/{PROJECT}",
            "GITHUB_WORKSPACE": str(self.work),
            "TWINE_USERNAME": "nobody",
            "TWINE_PASSWORD": "nothing",
            # A part suffices to see that it is the wheel that is tested.
            "PYTEST_ADDOPTS": "tests/core/test_models.py",
        }

    def run(self) -> None:
        python = ".".join(map(str, sys.version_info[:2]))
        context = {"github.token": "none", "matrix.python": python}
        workflow = load(self.work / ".github/workflows/release.yml")
        for name, job in workflow["jobs"].items():
            if "container" not in job:
                print(f"\n{name}")
                # What one job has installed is left for the next.
                git("-C", str(self.work), "clean", "-ffdxq", "-e.venv", "-e.nox")
                for output in self.job(job, context):
                    key, _, value = output.partition("=")
                    context[f"needs.{name}.outputs.{key}"] = value

    def job(self, job: Any, context: Mapping[str, str]) -> Iterator[str]:
        """Run the steps; yield the outputs."""
        for step in flat(job["steps"], self.work):
            given = step.get("with", {})
            artifact = self.place / "artifacts" / given.get("name", "")
            match step.get("uses", "").partition("@")[0]:
                case "":
                    env = {**job.get("env", {}), **step.get("env", {})}
                    for name, value in env.items():
                        known = re.fullmatch(r"\$\{\{ (\S+) \}\}", value)
                        env[name] = context[known[1]] if known else value
                    yield from self.script(step["run"], env)
                case "actions/checkout":
                    only = given.get("sparse-checkout", "/*").split()
                    how = ("sparse-checkout", "set", "--no-cone", *only)
                    git("-C", str(self.work), *how)
                case "actions/upload-artifact":
                    artifact.mkdir(parents=True)
                    for file in self.work.glob(re.sub("/$", "/*", given["path"])):
                        shutil.copy(file, artifact)
                case "actions/download-artifact":
                    shutil.copytree(artifact, self.work / given["path"])

    def script(self, text: str, env: Mapping[str, str]) -> list[str]:
        for part, other in self.changes.items():
            text = text.replace(part, other)
        print("  $ " + text.strip().replace("\n", "\n    "))
        output = self.place / "output"
        output.write_text("")
        command = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text)
        if subprocess.call(command, cwd=self.work, env={**self.env, **env}):
            raise ReleaseError("a script of this job failed: see above")
        return output.read_text().splitlines()
