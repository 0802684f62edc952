"""The graph of the workflows, as far as it can be wrong without GitHub noticing."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from release import rehearse

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = {path.stem: rehearse.load(path) for path in GITHUB.glob("workflows/*.yml")}
CI, RELEASE = (WORKFLOWS[name]["jobs"] for name in ("ci", "release"))
JOBS = [*CI.values(), *RELEASE.values()]
STEPS = {id(job): [*rehearse.flat(job["steps"], ROOT)] for job in JOBS}
WRITERS = {"sign", "testpypi", "pypi", "pages", "github"}


def artifacts(job: object, verb: str) -> set[str]:
    uses = [step for step in STEPS[id(job)] if f"/{verb}-artifact@" in str(step)]
    return {step["with"]["name"] for step in uses}


def test_what_a_job_uses_was_made_before() -> None:
    assert artifacts(CI["build"], "upload") == {"dist"}
    for job in RELEASE.values():
        needs = {need: RELEASE[need] for need in job.get("needs", ())}
        made = {name for need in needs.values() for name in artifacts(need, "upload")}
        assert artifacts(job, "download") <= made
        for need, key in re.findall(r"needs\.(\w+)\.outputs\.(\w+)", str(job)):
            assert f"steps.tell.outputs.{key} " in needs[need]["outputs"][key]


def test_a_pre_release_ends_on_the_test_index() -> None:
    conditions = {name: job["if"] for name, job in RELEASE.items() if "if" in job}
    assert conditions.pop("github") == (
        "!cancelled() && needs.verify_testpypi.result == 'success' && (needs."
        "verify_pypi.result == 'success' || needs.build.outputs.prerelease == 'true')"
    )
    final = "needs.build.outputs.prerelease == 'false'"
    assert conditions == {"pypi": final, "docs": final}
    assert "verify_testpypi" in RELEASE["pypi"]["needs"]
    assert RELEASE["pages"]["needs"] == ["docs", "verify_pypi"]


def test_permissions() -> None:
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {"contents": "read"}
    assert not [job for job in CI.values() if "permissions" in job]
    found = {name: job.get("permissions", {}).items() for name, job in RELEASE.items()}
    writes = {(n, k) for n, rights in found.items() for k, v in rights if v == "write"}
    tokens = {(name, "id-token") for name in WRITERS - {"github"}}
    assert writes == tokens | {("github", "contents"), ("pages", "pages")}
    for name in ("testpypi", "pypi"):
        assert RELEASE[name]["environment"] == RELEASE[name]["env"]["INDEX"] == name
        assert RELEASE[f"verify_{name}"]["env"]["INDEX"] == name
    # No variable could send a release elsewhere, or pretend that it is there.
    for path in [*GITHUB.glob("**/*.yml"), *GITHUB.glob("scripts/*")]:
        assert not re.search(r"\b(vars|secrets)\.|REHEARSAL", path.read_text())


def test_a_job_that_may_write_runs_nothing_of_the_project() -> None:
    own = r"\.github/scripts/(?!install-nox)|\.locked/bin/python -m (twine|pypi_att)"
    for step in chain(*[STEPS[id(RELEASE[name])] for name in WRITERS]):
        assert re.match(own, step.get("run", ".github/scripts/")), step
        if "/checkout@" in str(step):
            wanted = [f"/.github/{place}/" for place in ("actions", "locks", "scripts")]
            assert step["with"]["sparse-checkout"].split() == wanted
    assert not [*GITHUB.glob("actions/**/*.py"), *GITHUB.glob("scripts/*.py")]


def test_scripts_are_sessions_or_files() -> None:
    known = re.findall(r"\ndef (\w+)\(session", (ROOT / "noxfile.py").read_text())
    assert {*CI["others"]["strategy"]["matrix"]["session"]} <= {*known}
    for step in chain(*STEPS.values()):
        program, _, arguments = step.get("run", ".ci/run\n").partition(" ")
        if program == ".venv/bin/nox":
            sessions = arguments.partition("-s ")[2].partition(" -- ")[0]
            assert {*re.findall("[a-z_]+", sessions)} <= {*known}
        elif program not in ("dnf", ".locked/bin/python"):
            assert (ROOT / program.strip()).is_file()
        if "/checkout@" in str(step) and "sparse-checkout" not in step["with"]:
            # setuptools-scm needs the tags.
            assert step["with"]["fetch-depth"] == 0


def test_the_pip_of_old_pythons_takes_the_locks() -> None:
    """It wants extras to be in the lock as in the requirements: pydantic[email]."""
    assert "\npydantic[email]==" in (GITHUB / "locks" / "sign.txt").read_text()
    assert "pydantic" not in (GITHUB / "locks" / "nox.txt").read_text()
    assert "--no-strip-extras" in (ROOT / "noxfile.py").read_text()


def test_programs_of_some_distributions_only_are_marked() -> None:
    """The jobs on Fedora deselect these by name."""
    for jobs in (CI, RELEASE):
        assert '-m "not needs_packages"' in str(jobs["fedora"])
    for path in ROOT.glob("tests/*/test_*.py"):
        text = path.read_text()
        if re.search(r"provision\.(prometheus|collectd)", text):
            assert "pytest.mark.needs_packages" in text
