"""The steps of a release, in a little repository: what is made, and what refused."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from project import CHANGELOG, RELEASED, ROOT, VERSION, commit, git
from pypi_simple import PYPI_SIMPLE_ENDPOINT
from release import build, check, preflight, prepare, rehearse, tools, verify
from release.tools import ReleaseError
from twine.utils import TEST_REPOSITORY

SDIST, WHEEL = tools.distributions(VERSION)
INFO = f"pychrony-{VERSION}.dist-info/"
PYTHON = sys.executable


def run(step: str) -> None:
    name, *arguments = step.split()
    importlib.import_module(f"release.{name}").main(*arguments)


def test_who_builds_where_does_not_change_a_byte(dist: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        build.build(tmp_path / "a-much-longer-name" / "dist", PYTHON)
    finally:
        os.umask(before)
    check.demand_same(tmp_path / "a-much-longer-name" / "dist", tools.read_manifest())
    with tarfile.open(dist / SDIST) as archive:
        members = archive.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert {m.mode for m in members} == {0o644}


def test_a_reader_on_the_index_reaches_the_source_and_the_pages(dist: Path) -> None:
    with zipfile.ZipFile(dist / WHEEL) as archive:
        text = archive.read(f"{INFO}METADATA").decode()
    for name in ("Documentation", "Source", "Changelog", "Issues"):
        assert f"\nProject-URL: {name}, https://" in text
    assert not re.search(r"``docs/|^\.\. _[^:]+: (?!https://)", text, re.MULTILINE)


# What is done in the repository, or in a clone of it, and how a step then refuses.
def shallow(tree: Path) -> None:
    commit(tree, "more")
    git(tree, "clone", "-q", "--depth=1", f"file://{tree}", "clone")
    os.chdir("clone")


def topic(tree: Path) -> None:
    git(tree, "checkout", "--quiet", "-b", "topic")
    commit(tree, "more", "", "v3.2.0rc1")


def other_tag(tree: Path) -> None:
    git(tree, "tag", "v3.2.0")
    git(tree, "tag", "--delete", f"v{VERSION}")


def no_wheelhouse(tree: Path) -> None:
    (tree / "dist" / f"pychrony_wheelhouse-{VERSION}.tar.gz").unlink()
    tools.write_manifest(tree / "dist")


TREES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("preflight", lambda t: None, ""),
    ("preflight", lambda t: git(t, "tag", "v3.1.0-broken"), ""),
    ("preflight", lambda t: (t / "new").touch(), r"not clean \(\?\? new, 1 in all"),
    ("preflight", lambda t: git(t, "tag", "v1.3"), "has v1.3 and v3.1.0: a r"),
    ("preflight", lambda t: commit(t, "more"), "has no version tag: a rel"),
    ("preflight", topic, "not on main"),
    ("preflight", lambda t: commit(t, "more", "", "v3.2.0"), "nothing under 3.2.0"),
    ("prepare 3.2.0", lambda t: (t / "new").touch(), "not clean"),
    ("prepare 3.2.0", topic, "topic is checked out"),
    (
        "prepare 3.2.0",
        lambda t: git(t, "checkout", "-q", "--detach"),
        "without a branc",
    ),
    ("prepare 3.0.9", lambda t: None, "git has 3.1.0 already, so 3.0.9 cannot be r"),
    ("prepare 3.2.0", lambda t: None, "^pypi has 3.4.0 already, so 3.2.0 cannot be r"),
    ("prepare 3.5.0", lambda t: None, "testpypi has 3.5.0 already"),
    *[
        (f"prepare {version}", lambda t: None, "no version of a release")
        for version in ("v3.6", "3.06", "3.6-rc1", "3.6.dev1", "x")
    ],
    (f"build {PYTHON}", shallow, "shallow.*git fetch --unshallow"),
    (
        f"build {PYTHON}",
        lambda t: commit(t, "setup.py", "1 / 0"),
        r"python.* failed \(",
    ),
    (f"check {PYTHON}", other_tag, r"has pychrony-3\.1\.0-py3.* here is v3\.2\.0"),
    (f"check {PYTHON}", no_wheelhouse, "lacks pychrony_wheelhouse"),
    *[
        (
            step,
            lambda t: commit(t, "pychrony/more.py"),
            f"{archive} is unlike git.*more",
        )
        for step, archive in (("sdist", "tar.gz"), ("wheel", "whl"))
    ],
]


@pytest.mark.parametrize(("step", "damage", "message"), TREES)
def test_a_tree_is_refused(
    dist: Path, indexes: Path, step: str, damage: Callable[[Path], Any], message: str
) -> None:
    (indexes / "pypi" / "pychrony-3.4.0.tar.gz").touch()
    (indexes / "testpypi" / "pychrony-3.5.0.tar.gz").touch()
    damage(dist.parent)
    if not message:
        run(step)
        return
    with pytest.raises(ReleaseError, match=message):
        if step == "sdist":
            check.demand_files_of_git(dist / SDIST, SDIST[:-7], ".")
        elif step == "wheel":
            check.demand_files_of_git(dist / WHEEL, "pychrony", "pychrony")
        else:
            run(step)


def rewrite(dist: Path, name: str, content: str | None) -> None:
    """Put a file into the wheel, leave it out, or add to what is there."""
    with zipfile.ZipFile(dist / WHEEL) as archive:
        contents = {member: archive.read(member) for member in archive.namelist()}
    old = contents.pop(name, b"")
    if content is not None:
        contents[name] = old + content.encode()
    with zipfile.ZipFile(dist / WHEEL, "w") as archive:
        for member, data in contents.items():
            archive.writestr(member, data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pychrony/py.typed", None, "unlike git.*Only in git/pychrony: py.typed"),
        ("pychrony/more.py", "1", "unlike git.*Only in packed/pychrony: more.py"),
        ("pychrony/__init__.py", "1", "unlike git.*pychrony/__init__.py differ"),
        (f"{INFO}a.so", "1", "has compiled code, a.so"),
        (f"{INFO}a", "\x7fELF", "has compiled code, a,"),
        ("tests/__init__.py", "1", "another build .* differs"),
        (f"{INFO}METADATA", "Requires-Dist: foreign\n", "another build .* differs"),
        (f"{INFO}entry_points.txt", "foreign = a:b\n", "another build .* differs"),
        (f"{INFO}RECORD", "foreign,,\n", "another build .* differs"),
    ],
)
def test_a_wheel_that_nobody_else_builds_is_refused(
    dist: Path, made: Path, name: str, content: str | None, message: str
) -> None:
    check.demand_files_of_git(dist / WHEEL, "pychrony", "pychrony")
    rewrite(dist, name, content)
    with pytest.raises(ReleaseError, match=message):
        check.demand_files_of_git(dist / WHEEL, "pychrony", "pychrony")
        check.demand_same(made.parent / "dist", tools.digests_in(dist))


@pytest.mark.usefixtures("indexes")
def test_a_final_release_after_a_candidate(tree: Path) -> None:
    changelog = tree / "CHANGELOG.rst"
    prepare.main("3.2.0rc1")
    assert changelog.read_text() == CHANGELOG + RELEASED
    assert git(tree, "cat-file", "-t", "v3.2.0rc1") == "tag\n"
    commit(tree, "more")
    prepare.main("3.2.0")
    preflight.main()
    assert git(tree, "log", "-1", "--format=%s") == "Release 3.2.0\n"
    assert prepare.notes(Version("3.2.0")) == "- It works.\n"
    assert prepare.notes(Version(VERSION)) == "### Added\n\n- All.\n"
    assert changelog.read_text().endswith(f"- It works.\n{RELEASED}")
    with pytest.raises(ReleaseError, match="nothing under Unreleased"):
        prepare.main("3.3.0")


@pytest.mark.usefixtures("indexes")
def test_the_rehearsal_has_a_tag_of_its_own(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / ".github"))
    assert rehearse.clone(tmp_path / "tagged") == f"v{VERSION}"
    git(tree, "tag", "--delete", f"v{VERSION}")
    assert rehearse.clone(tmp_path / "untagged") == "v9999.0"
    # The commit of a release, before its tag: CI rehearses and builds it, too.
    commit(tree, "CHANGELOG.rst", f"Unreleased\n----------\n{RELEASED}")
    assert rehearse.clone(tmp_path / "released") == f"v{VERSION}"
    for name in ("tagged", "untagged", "released"):
        monkeypatch.chdir(tmp_path / name)
        preflight.main()


def test_a_rehearsal_that_fails_ends(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError), rehearse.indexes(tmp_path):
        raise ReleaseError


def test_each_index_is_the_one_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMPLE_INDEX", verify.INDEXES["testpypi"])
    assert verify.address("pypi") == PYPI_SIMPLE_ENDPOINT
    host = TEST_REPOSITORY.removesuffix("/legacy/")
    assert verify.address("testpypi") == f"{host}/simple/"


def test_what_an_index_lacks(
    dist: Path, indexes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        return verify.missing("pypi", Version(VERSION), tools.digests_in(dist))

    assert missing() == "pypi has no project pychrony"
    (indexes / "pypi" / "pychrony-3.0.tar.gz").touch()
    assert missing() == f"pypi does not list {min(SDIST, WHEEL)}"
    monkeypatch.setattr(verify, "PAUSES", ())
    with pytest.raises(ReleaseError, match="never comes back, so then release a new"):
        verify.main("pypi")
    for name in (SDIST, WHEEL):
        (indexes / "pypi" / name).write_bytes((dist / name).read_bytes())
    assert missing() == ""
    (indexes / "pypi" / WHEEL).write_bytes(b"")
    with pytest.raises(ReleaseError, match=f"pypi has another {WHEEL} than was built"):
        missing()


@pytest.mark.parametrize(
    ("step", "variable", "value", "message"),
    [
        ("verify pypi", "REHEARSAL_pypi", "http://127.0.0.1:9/", "is no connection"),
        ("preflight", "GIT_TEST_ASSUME_DIFFERENT_OWNER", "1", "safe.directory"),
        (f"build {PYTHON}", "UV_DEFAULT_INDEX", "http://127.0.0.1:9", "a network?"),
    ],
)
def test_a_refusal_is_one_line(
    dist: Path, step: str, variable: str, value: str, message: str
) -> None:
    own = {key: text for key, text in os.environ.items() if key[:3] != "UV_"}
    alone = {"UV_NO_CACHE": "1", "UV_NO_CONFIG": "1", "UV_HTTP_RETRIES": "0"}
    result = subprocess.run(
        [PYTHON, "-m", "release", *step.split()],
        cwd=dist.parent,
        env={**own, **alone, variable: value, "PYTHONPATH": str(ROOT / ".github")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert re.fullmatch(rf"refused: .*{re.escape(message)}.*\n", result.stdout)
