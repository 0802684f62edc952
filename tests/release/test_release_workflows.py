"""The workflows: their graph, and their scripts in a clean clone on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from project import ROOT, VERSION, git
from release import rehearse, runner, tools

GITHUB = ROOT / ".github"
SCRIPTS = GITHUB / "scripts"
WORKFLOWS = {path.stem: runner.load(path) for path in GITHUB.glob("workflows/*.yml")}
RELEASE = WORKFLOWS["release"]["jobs"]
JOBS = {
    f"{stem}/{name}": job
    for stem, workflow in WORKFLOWS.items()
    for name, job in workflow["jobs"].items()
}
SESSIONS = re.findall(r"\ndef (\w+)\(session", (ROOT / "noxfile.py").read_text())
WRITERS = {"sign", "testpypi", "pypi", "pages", "github"}


def flat(steps: list[Any]) -> Iterator[Any]:
    """The steps, with those of the actions of this repository in their places."""
    for step in steps:
        if step.get("uses", "").startswith("./"):
            action = runner.load(ROOT / step["uses"] / "action.yml")
            yield from flat(action["runs"]["steps"])
        else:
            yield step


def before(name: str) -> set[str]:
    """The jobs that have ended when this one begins."""
    needs = {*RELEASE[name].get("needs", ())}
    return needs.union(*map(before, needs))


def artifacts(job: Any, verb: str) -> set[str]:
    steps = [one for one in flat(job["steps"]) if "uses" in one]
    found = {s["with"]["name"] for s in steps if f"/{verb}-artifact@" in s["uses"]}
    pages = {"upload": "/upload-pages-artifact@", "download": "/deploy-pages@"}[verb]
    return found | {"github-pages" for s in steps if pages in s["uses"]}


def test_artifacts_are_uploaded_before() -> None:
    for name in RELEASE:
        earlier = [artifacts(RELEASE[job], "upload") for job in before(name)]
        assert artifacts(RELEASE[name], "download") <= {*chain(*earlier)}, name
    assert artifacts(JOBS["ci/build"], "upload") == {"dist"}


def test_permissions() -> None:
    for name, workflow in WORKFLOWS.items():
        assert workflow["permissions"] == {"contents": "read"}, name
    found = {name: job.get("permissions", {}).items() for name, job in JOBS.items()}
    writes = {(n, k) for n, rights in found.items() for k, v in rights if v == "write"}
    tokens = {(f"release/{name}", "id-token") for name in WRITERS - {"github"}}
    others = {("release/github", "contents"), ("release/pages", "pages")}
    assert writes == tokens | others
    for name in ("testpypi", "pypi"):
        assert RELEASE[name]["environment"] == name


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_job_that_may_write_runs_nothing_of_the_project(name: str) -> None:
    own = r"\.github/scripts/|\.locked/bin/python -m (twine|pypi_attestations) "
    for step in flat(RELEASE[name]["steps"]):
        if "run" in step:
            assert re.match(own, step["run"]) and "install-nox" not in step["run"]
        elif step["uses"].startswith("actions/checkout@"):
            wanted = step["with"]["sparse-checkout"].split()
            places = ("actions", "locks", "scripts")
            assert wanted == [f"/.github/{place}/" for place in places]
    assert not [*GITHUB.glob("actions/**/*.py"), *GITHUB.glob("scripts/*.py")]


def test_nothing_is_set_on_github_but_names() -> None:
    """No variable could send a release elsewhere, or pretend that it is there."""
    for path in [*GITHUB.glob("**/*.yml"), *SCRIPTS.iterdir()]:
        assert not re.search(r"\b(vars|secrets)\.|REHEARSAL", path.read_text())


def test_scripts_are_sessions_or_run_below() -> None:
    known = {*SESSIONS, "$SESSION", *JOBS["ci/others"]["strategy"]["matrix"]["session"]}
    assert known - {"$SESSION"} == {*SESSIONS}
    for job in JOBS.values():
        depth = 1
        for step in flat(job["steps"]):
            depth = step.get("with", {}).get("fetch-depth", depth)
            script = step.get("run", ".ci/run")
            if match := re.match(r"\.venv/bin/nox .*?-s (.*)", script):
                for session in match[1].partition(" -- ")[0].split():
                    assert session.strip('"').partition("(")[0] in known
                # These take the version from the tags.
                assert depth == 0 or re.search("wheel_tests|verify", script)
            else:
                own = script.split()[0]
                assert own in ("dnf", ".locked/bin/python") or (ROOT / own).is_file()


@pytest.mark.parametrize("version", [VERSION, "3.2.0rc1"])
def test_the_jobs_of_a_release(
    dist: Path, indexes: Path, version: str, capfd: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["cp", "-r", str(GITHUB), "."], check=True)
    built = dist.rename(indexes / "built")
    git(dist.parent, "add", "--all")
    git(dist.parent, "commit", "--quiet", "--message", "machinery")
    git(dist.parent, "tag", "--force", f"v{version}")
    work = indexes / "work"
    git(dist.parent, "clone", "--quiet", ".", str(work))
    python = f"mkdir -p .locked/bin; echo 'exec {sys.executable} \"$@\"'"
    jobs = rehearse.runner(work, f"v{version}")
    # What needs the network or takes long has tests of its own.
    jobs.changes = {
        **jobs.changes,
        ".venv/bin/nox --stop": f"cp -r {built} dist; echo nox --stop",
        ".venv/bin/nox": "echo nox",
        ".github/scripts/install-nox": "echo install",
        ".github/scripts/install ": (
            f"{python} > .locked/bin/python; chmod +x .locked/bin/*; echo "
        ),
    }
    skipped = jobs.run(work / ".github/workflows/release.yml")
    told = capfd.readouterr().out
    final = version == VERSION
    assert skipped == ([] if final else ["pypi", "verify_pypi", "docs", "pages"])
    assert "nox --stop-on-first-error -s preflight build wheelhouse check" in told
    how = f"--prerelease={str(not final).lower()} --title v{version}"
    assert f"{how} --notes-file dist/NOTES.md" in told
    signed = [
        f"attestations/{path.name}.publish.attestation" for path in built.glob("p*")
    ]
    assert all(name in told for name in signed) and len(signed) == 3
    uploaded = sorted(tools.distributions(VERSION))
    for name in rehearse.INDEXES[: 2 if final else 1]:
        assert sorted(path.name for path in (indexes / name).iterdir()) == uploaded


def script(name: str, **variables: str) -> str:
    """How the script ends, or nothing if it succeeds."""
    result = subprocess.run(
        [str(SCRIPTS / name)], env={"PATH": "/usr/bin:/bin", **variables},
        stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    return "" if not result.returncode else result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("SHA256SUMS", "", "SHA256SUMS is not that of the build job"),
        ("SHA256SUMS", "", "a file is not as"),
        ("SHA256SUMS", None, "a file is not as"),
        ("NOTES.md", "", "a file is not as"),
        ("NOTES.md", None, "a file is not as"),
        ("pychrony-9.tar.gz", "", "there are files that"),
        (".hidden", "", "there are files that"),
        (".", None, "nothing was built"),
    ],
)
def test_receive(dist: Path, name: str, content: str | None, message: str) -> None:
    manifest = tools.sha256(dist / tools.MANIFEST)
    assert script("receive", MANIFEST=manifest) == ""
    assert "of the build job" in script("receive", MANIFEST="")
    assert len(tools.read_manifest()) == 4
    if content is not None:
        (dist / name).write_text(content)
    else:
        shutil.rmtree(dist) if name == "." else (dist / name).unlink()
    if "the build job" in message:
        assert message in script("receive", MANIFEST=manifest)
    else:
        with pytest.raises(tools.ReleaseError, match=message):
            tools.read_manifest()


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("completed failure, completed success", ""),
        ("in_progress ", "(in_progress ): wait until it is"),
        ("completed failure", "(completed failure): wait until it is, or mend"),
        ("", "(it never ran)"),
    ],
)
@pytest.mark.usefixtures("tree")
def test_demand_green(tmp_path: Path, runs: str, message: str) -> None:
    (tmp_path / "gh").write_text(f"#!/bin/sh\nprintf '{runs}'\n")
    (tmp_path / "gh").chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    told = script("demand-green", PATH=path, GITHUB_REPOSITORY="a/b")
    assert message in told and bool(message) == bool(told)


def test_the_pip_of_old_pythons_takes_the_locks() -> None:
    """It wants extras to be in the lock as in the requirements: pydantic[email]."""
    assert "\npydantic[email]==" in (GITHUB / "locks" / "sign.txt").read_text()
    nox = (GITHUB / "locks" / "nox.txt").read_text()
    assert "pydantic" not in nox and len(re.findall("^[a-z]", nox, re.M)) < 25
    assert "--no-strip-extras" in (ROOT / "noxfile.py").read_text()


def test_programs_of_some_distributions_only_are_marked() -> None:
    """The jobs on Fedora deselect these by name."""
    for job in ("ci/fedora", "release/fedora"):
        assert '-m "not needs_packages"' in str(JOBS[job])
    for path in ROOT.glob("tests/*/test_*.py"):
        text = path.read_text()
        if re.search(r"provision\.(prometheus|collectd)", text):
            assert "pytest.mark.needs_packages" in text
