"""The steps of a release, in a little repository: what is made, and what refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
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
Damage = Callable[[Path], Any]


@pytest.fixture
def indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two empty ones: directories in which pypiserver serves what one puts there."""
    with rehearse.index(tmp_path / "testpypi") as test:
        with rehearse.index(tmp_path / "pypi") as real:
            monkeypatch.setenv("REHEARSAL_PORTS", f"testpypi={test} pypi={real}")
            yield tmp_path


# Build and check


def test_who_builds_where_does_not_change_a_byte(
    built: Path, tree: Path, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        build.build(tmp_path / "a-much-longer-name" / "dist", Path(sys.executable))
    finally:
        os.umask(before)
    for path in (tmp_path / "a-much-longer-name" / "dist").iterdir():
        assert tools.sha256(path) == tools.read_manifest(built)[path.name]
    with tarfile.open(built / SDIST) as archive:
        members = archive.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert {m.mode for m in members} == {0o644}


def test_a_build_that_cannot_be_is_refused(tree: Path, tmp_path: Path) -> None:
    commit(tree, "setup.py", "raise SystemExit(3)")
    with pytest.raises(ReleaseError, match=r"python.* failed \("):
        build.build(tmp_path / "dist", Path(sys.executable))
    git(tree, "clone", "-q", "--depth=1", f"file://{tree}", str(tmp_path / "shallow"))
    os.chdir(tmp_path / "shallow")
    with pytest.raises(ReleaseError, match=r"shallow.*git fetch --unshallow"):
        build.build(tmp_path / "dist", Path(sys.executable))


def rewrite(dist: Path, name: str, content: str | None) -> None:
    """Put a file into the wheel, leave it out, or add to what is there."""
    with zipfile.ZipFile(dist / WHEEL) as archive:
        contents = {member: archive.read(member) for member in archive.namelist()}
    old = contents.pop(name, b"") if content != "" else b""
    if content is not None:
        contents[name] = old + content.encode()
    with zipfile.ZipFile(dist / WHEEL, "w") as archive:
        for member, data in contents.items():
            archive.writestr(member, data)
    tools.write_manifest(dist)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pychrony/py.typed", None, "lacks pychrony/py.typed"),
        ("pychrony/more.py", "1", "has its own pychrony/more.py"),
        ("pychrony/__init__.py", "1", "has its own pychrony/__init__.py"),
        ("tests/__init__.py", "1", "has its own tests/__init__.py"),
        (f"{INFO}a.so", "1", "has compiled code"),
        (f"{INFO}METADATA", "Requires-Dist: foreign\n", "another build .* differs"),
        (f"{INFO}entry_points.txt", "foreign = a:b\n", "another build .* differs"),
        (f"{INFO}RECORD", "foreign,,\n", "another build .* differs"),
    ],
)
def test_a_wheel_that_nobody_else_builds_is_refused(
    dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, content: str | None, message: str,
) -> None:  # fmt: skip
    here = Path(sys.executable)
    monkeypatch.setattr(check, "environment", lambda *_: here)
    check.check_files(dist / SDIST, dist / WHEEL)
    rewrite(dist, name, content)
    with pytest.raises(ReleaseError, match=message):
        check.check_files(dist / SDIST, dist / WHEEL)
        check.rebuild(tmp_path, str(here), tools.read_manifest(dist))


def test_an_sdist_of_another_commit_is_refused(dist: Path, tree: Path) -> None:
    commit(tree, "more", "")
    with pytest.raises(ReleaseError, match=r"tar\.gz lacks more, unlike git"):
        check.check_files(dist / SDIST, dist / WHEEL)
    git(tree, "tag", "v3.2.0")
    with pytest.raises(ReleaseError, match=r"and the tag here is v3\.2\.0"):
        check.main(sys.executable)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "SHA256SUMS").unlink(), "has no SHA256SUMS"),
        (lambda d: (d / "SHA256SUMS").write_bytes(b"\xff"), "cannot be read"),
        (lambda d: (d / "SHA256SUMS").write_text("x\n"), "differ in"),
        (lambda d: (d / "stray").mkdir(), "cannot be read"),
        (lambda d: (d / "stray").touch(), "differ in stray"),
        (lambda d: (d / SDIST).unlink(), f"differ in {SDIST}"),
        (lambda d: (d / WHEEL).write_bytes(b""), f"differ in {WHEEL}"),
    ],
)
def test_files_that_were_not_built_are_refused(
    dist: Path, damage: Damage, message: str
) -> None:
    assert tools.read_manifest(dist).keys() > {SDIST, WHEEL}
    damage(dist)
    with pytest.raises(ReleaseError, match=message):
        tools.read_manifest(dist)


# Preflight and prepare


def off_branch(tree: Path) -> None:
    git(tree, "checkout", "--quiet", "-b", "topic")
    commit(tree, "more", "", "v3.2.0rc1")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: None, None),
        (lambda t: git(t, "tag", "v3.1.0-broken"), None),
        (lambda t: (t / "new").touch(), r"not clean \(\?\? new\): commit, stash"),
        (lambda t: git(t, "tag", "v1.3"), "more than one version tag, v1.3 and v3"),
        (lambda t: commit(t, "more", ""), "has no version tag: check out the tag"),
        (off_branch, "not on main"),
        (lambda t: commit(t, "more", "", "v3.2.0"), "nothing under 3.2.0"),
    ],
)
def test_preflight(tree: Path, damage: Damage, message: str | None) -> None:
    damage(tree)
    if message is None:
        preflight.main()
    else:
        with pytest.raises(ReleaseError, match=message):
            preflight.main()


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([("completed", "failure"), ("completed", "success")], None),
        ([("in_progress", "")], "CI still runs .* when it is green"),
        ([("completed", "failure")], "CI is not green .*https://example.org"),
        ([], "CI is not green .*it never ran"),
    ],
)
def test_preflight_asks_for_the_result_of_ci(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    runs: list[tuple[str, str]], message: str | None,
) -> None:  # fmt: skip
    names = ("status", "conclusion", "url")
    listed = [dict(zip(names, (*run, "https://example.org"))) for run in runs]
    (tmp_path / "gh").write_text(f"#!/bin/sh\necho '{json.dumps(listed)}'\n")
    (tmp_path / "gh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/pychrony")
    monkeypatch.setenv("GH_TOKEN", "x")
    if message is None:
        preflight.main()
    else:
        with pytest.raises(ReleaseError, match=message):
            preflight.main()


@pytest.mark.usefixtures("indexes")
def test_a_final_release_after_a_candidate(tree: Path) -> None:
    changelog = tree / "CHANGELOG.rst"
    prepare.main("3.2.0rc1")
    assert changelog.read_text() == CHANGELOG + RELEASED
    assert git(tree, "cat-file", "-t", "v3.2.0rc1") == "tag\n"
    commit(tree, "more", "")
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
    for name, tag in (("untagged", "v9999.0"), ("released", f"v{VERSION}")):
        assert git(tmp_path / name, "tag", "--points-at", "HEAD") == f"{tag}\n"
        monkeypatch.chdir(tmp_path / name)
        preflight.main()


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("3.1.0", "git has 3.1.0 already"),
        ("3.0.9", "git has 3.1.0 already, so 3.0.9 cannot be released"),
        ("3.2.0", "pypi has 3.4.0 already, so 3.2.0 cannot be released"),
        ("3.5.0", "testpypi has 3.5.0 already"),
        *[
            (v, "no version of a r")
            for v in ("v3.6", "3.06", "3.6-rc1", "3.6.dev1", "x")
        ],
    ],
)
def test_prepare_refuses_a_version(
    tree: Path, indexes: Path, version: str, message: str
) -> None:
    (indexes / "pypi" / "pychrony-3.4.0.tar.gz").touch()
    (indexes / "testpypi" / "pychrony-3.5.0.tar.gz").touch()
    with pytest.raises(ReleaseError, match=message):
        prepare.main(version)
    assert git(tree, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: (t / "new").touch(), "not clean"),
        (lambda t: git(t, "checkout", "-qb", "topic"), "topic is checked out"),
        (lambda t: git(t, "checkout", "-q", "--detach"), "a commit without a branch"),
    ],
)
def test_prepare_refuses_a_tree(tree: Path, damage: Damage, message: str) -> None:
    damage(tree)
    with pytest.raises(ReleaseError, match=message):
        prepare.main("3.2.0")


# What the indexes have


def test_each_index_is_the_one_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMPLE_INDEX", verify.INDEXES["testpypi"])
    assert verify.address("pypi") == PYPI_SIMPLE_ENDPOINT
    host = TEST_REPOSITORY.removesuffix("/legacy/")
    assert verify.address("testpypi") == f"{host}/simple/"


def test_what_an_index_lacks(
    dist: Path, indexes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests, version = tools.read_manifest(dist), Version(VERSION)

    def missing() -> str:
        return verify.missing("pypi", version, digests)

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
    ("step", "variables", "message"),
    [
        (("verify", "pypi"), {"REHEARSAL_PORTS": "pypi=9"}, "there is no connection"),
        (("preflight",), {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, "another user"),
        (
            ("build", sys.executable),
            {"UV_DEFAULT_INDEX": "http://127.0.0.1:9"},
            "network?",
        ),
    ],
)
def test_a_refusal_is_one_line(
    dist: Path, step: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    own = {key: value for key, value in os.environ.items() if key[:3] != "UV_"}
    alone = {"UV_NO_CACHE": "1", "UV_NO_CONFIG": "1", "UV_HTTP_RETRIES": "0"}
    result = subprocess.run(
        [sys.executable, "-m", "release", *step],
        cwd=dist.parent,
        env={**own, **alone, **variables, "PYTHONPATH": str(ROOT / ".github")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert re.fullmatch(rf"refused: .*{re.escape(message)}.*\n", result.stdout)
