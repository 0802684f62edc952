"""The workflows: their graph, and their scripts in a clean clone on this machine."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from project import ROOT, VERSION, git
from release import rehearse, runner, tools

GITHUB = ROOT / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
RELEASE = runner.load(GITHUB / "workflows" / "release.yml")["jobs"]
JOBS = {
    f"{path.stem}/{name}": job
    for path in WORKFLOWS
    for name, job in runner.load(path)["jobs"].items()
}
NOXFILE = (ROOT / "noxfile.py").read_text()


def flat(steps: list[Any]) -> Iterator[Any]:
    """The steps, with those of the actions of this repository in their places."""
    for step in steps:
        if step.get("uses", "").startswith("./"):
            action = runner.load(ROOT / step["uses"] / "action.yml")
            inputs = {
                name: one.get("default") for name, one in action["inputs"].items()
            }
            given = {"inputs": {**inputs, **step.get("with", {})}}
            inner = action["runs"]["steps"]
            yield from flat(
                [s for s in inner if runner.evaluate(s.get("if", "1"), given)]
            )
        else:
            yield step


def before(name: str) -> set[str]:
    """The jobs that have ended when this one begins."""
    needs = {*RELEASE[name].get("needs", ())}
    return needs.union(*map(before, needs))


def test_needs_and_outputs_exist() -> None:
    for name, job in RELEASE.items():
        needs = {*job.get("needs", ())}
        assert needs <= {*list(RELEASE)[: list(RELEASE).index(name)]}
        for need, what in re.findall(r"needs\.([\w-]+)\.([\w.]+)", str(job)):
            assert need in needs, name
            kind, _, output = what.partition(".")
            assert kind == "result" or output in RELEASE[need]["outputs"]
        for output, text in job.get("outputs", {}).items():
            (step,) = re.findall(r"steps\.(\w+)\.outputs", text)
            (script,) = [one["run"] for one in job["steps"] if one.get("id") == step]
            assert f'echo "{output}=' in script


def artifacts(name: str, verb: str) -> set[str]:
    steps = [one for one in flat(RELEASE[name]["steps"]) if "uses" in one]
    found = {s["with"]["name"] for s in steps if f"/{verb}-artifact@" in s["uses"]}
    pages = {"upload": "/upload-pages-artifact@", "download": "/deploy-pages@"}[verb]
    return found | {"github-pages" for s in steps if pages in s["uses"]}


def test_artifacts_are_uploaded_before() -> None:
    for name in RELEASE:
        uploaded = {one for job in before(name) for one in artifacts(job, "upload")}
        assert artifacts(name, "download") <= uploaded, name


def test_permissions() -> None:
    assert all(runner.load(path)["permissions"] == {} for path in WORKFLOWS)
    writes = {
        (name, kind)
        for name, job in JOBS.items()
        for kind, right in job["permissions"].items()
        if right == "write"
    }
    tokens = {"sign", "testpypi", "pypi", "pages"}
    allowed = {(f"release/{name}", "id-token") for name in tokens}
    assert writes == allowed | {
        ("release/github", "contents"),
        ("release/pages", "pages"),
    }
    for name in ("testpypi", "pypi"):
        assert RELEASE[name]["environment"] == name


@pytest.mark.parametrize(
    "name",
    [name for name, job in JOBS.items() if "write" in job["permissions"].values()],
)
def test_a_job_that_may_write_runs_nothing_of_the_project(name: str) -> None:
    allowed = (
        *(".github/actions/receive/receive$", "python3 -m venv .locked\n"),
        *(".locked/bin/python -m (twine|pypi_attestations) ", "if ! gh release view "),
    )
    for step in flat(JOBS[name]["steps"]):
        if "run" in step:
            assert any(re.match(start, step["run"]) for start in allowed)
        elif step["uses"].startswith("actions/checkout@"):
            wanted = step["with"]["sparse-checkout"].split()
            assert wanted == ["/.github/actions/", "/.github/locks/"]
    assert not list(GITHUB.glob("actions/**/*.py"))


def test_nothing_is_set_on_github_but_names() -> None:
    """No variable could send a release elsewhere, or pretend that it is there."""
    for path in GITHUB.glob("**/*.yml"):
        assert not re.search(r"\b(vars|secrets)\.|REHEARSAL", path.read_text())


def test_scripts_are_sessions_or_run_below() -> None:
    inline = set()
    for job in JOBS.values():
        for step in flat(job["steps"]):
            match = re.match(r"\.venv/bin/nox .*?-s (.*)", step.get("run", ""))
            if not match:
                inline.add(step.get("run", "").split(" ")[0].strip())
                continue
            for session in match[1].partition(" -- ")[0].split():
                name = session.strip('"').partition("(")[0]
                assert name == "$SESSION" or f"\ndef {name}(session" in NOXFILE
    matrix = JOBS["ci/others"]["strategy"]["matrix"]["session"]
    assert all(f"\ndef {name}(session" in NOXFILE for name in matrix)
    own = {".ci/run", ".github/actions/receive/receive", "if", "python3", "dnf", ""}
    installs = {".github/actions/setup/install-nox", ".locked/bin/python"}
    assert inline == own | installs | {"digest=$(sha256sum"}


# What needs the network or takes long has tests of its own.
def instead(dist: Path, work: str) -> dict[tuple[str, str], str]:
    python = f"mkdir -p .locked/bin; echo 'exec {sys.executable} \"$@\"' > {work}"
    found = {("build", "nox -"): f"cp -r {dist} dist", ("docs", "nox -"): "mkdir -p d"}
    for job in RELEASE:
        found[job, "install-nox"] = ":"
        found.setdefault((job, "nox -s"), ":")
        found[job, "pip install"] = f"{python}; chmod +x {work}"
    return found


@pytest.mark.parametrize("version", [VERSION, "3.2.0rc1"])
def test_the_jobs_of_a_release(
    built: Path,
    tree: Path,
    tmp_path: Path,
    version: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    subprocess.run(["cp", "-r", str(GITHUB), str(tree)], check=True)
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "machinery")
    git(tree, "tag", "--force", f"v{version}")
    with ExitStack() as stack:
        names = ("testpypi", "pypi")
        ports = {n: stack.enter_context(rehearse.index(tmp_path / n)) for n in names}
        jobs = rehearse.runner(tmp_path, f"v{version}", ports)
        jobs.clone = tree
        mine = instead(built, ".locked/bin/python")
        jobs.instead = {**mine, **dict(jobs.instead)}
        jobs.instead["sign", "pip install"] = ":"
        jobs.instead["docs", "nox -s"] = "mkdir -p docs/_build/html"
        results = jobs.run(GITHUB / "workflows" / "release.yml")
    told = capfd.readouterr().out
    final = version == VERSION
    skipped = {name for name, result in results.items() if result == "skipped"}
    assert skipped == (set() if final else {"pypi", "verify-pypi", "docs", "pages"})
    assert f"--prerelease={str(not final).lower()} --title v{version}" in told
    uploaded = sorted(tools.distributions(VERSION))
    for name in names[: 2 if final else 1]:
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == uploaded


def write(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: None, ""),
        (lambda d: write(d / "SHA256SUMS", ""), "SHA256SUMS is not that of the build"),
        (lambda d: write(d / "NOTES.md", ""), "a file was changed"),
        (lambda d: (d / "NOTES.md").unlink(), "a file was changed"),
        (lambda d: write(d / "pychrony-9.tar.gz", ""), "has files that are not in"),
    ],
)
def test_receive(dist: Path, damage: Any, message: str) -> None:
    manifest = tools.sha256(dist / tools.MANIFEST)
    damage(dist)
    result = subprocess.run(
        [str(GITHUB / "actions/receive/receive")],
        cwd=dist.parent,
        env={"MANIFEST": manifest, "PATH": "/usr/bin:/bin"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert bool(result.returncode) == bool(message)
    assert not message or message in result.stderr.splitlines()[-1]


def test_the_pip_of_old_pythons_takes_the_locks() -> None:
    """It wants extras to be in the lock as in the requirements: pydantic[email]."""
    groups = (ROOT / "pyproject.toml").read_text().partition("[dependency-groups]")[2]
    for path in GITHUB.glob("locks/*.txt"):
        assert f"\n{path.stem} = [" in groups
    sign = (GITHUB / "locks" / "sign.txt").read_text()
    assert "\npydantic[email]==" in sign
    nox = (GITHUB / "locks" / "nox.txt").read_text()
    assert "pydantic" not in nox and len(re.findall("^[a-z]", nox, re.M)) < 25
    assert "--no-strip-extras" in NOXFILE


def test_programs_of_some_distributions_only_are_marked() -> None:
    """The jobs on Fedora deselect these by name."""
    for job in ("ci/fedora", "release/fedora"):
        assert '-m "not needs_packages"' in str(JOBS[job])
    for path in ROOT.glob("tests/*/test_*.py"):
        text = path.read_text()
        if re.search(r"provision\.(prometheus|collectd)", text):
            assert "pytest.mark.needs_packages" in text
