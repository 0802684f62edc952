"""Releases: what is refused, and what goes on after something went wrong.

twine is real, and so are git, the build and the index servers (pypiserver). What
stands in for the network: see .github/release/standin.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.version import Version
from release import ReleaseError, changelog, files, index, publishing, verifying
from release.building import build, normalise
from release.checking import check_contents
from release.files import Release, open_release, write_manifest
from release.preflight import preflight
from release.preparing import prepare
from release.repository import git
from release.standin import Fault, Packages, StandIns

ROOT = Path(__file__).parents[2]
VERSION = "1.2.0"
CHANGELOG = "Changelog\n=========\n\nUnreleased\n----------\n\n- It works.\n"
RELEASED = f"\n{VERSION} (2026-01-02)\n------------------\n\n- It works.\n"


def run_git(tree: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.check_output(
        ["git", "-C", str(tree), *identity, *arguments], text=True
    )


def commit(tree: Path, name: str, content: str) -> None:
    (tree / name).write_text(content)
    run_git(tree, "add", "--all")
    run_git(tree, "commit", "--quiet", "--message", name)


@pytest.fixture(scope="session")
def own_git() -> Iterator[None]:
    """Neither the settings of the user nor a hook that runs this."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield


@pytest.fixture(scope="session")
def original(own_git: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little repository with this project's settings, tagged and ready."""
    tree = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "setup.cfg", "README.rst", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    (tree / "pychrony").mkdir()
    (tree / "pychrony" / "py.typed").touch()
    (tree / "pychrony" / "__init__.py").write_text('"""A library."""\n')
    run_git(tree, "init", "--quiet", "--initial-branch", "main")
    run_git(tree, "config", "user.name", "A")
    run_git(tree, "config", "user.email", "a@example.org")
    commit(tree, "CHANGELOG.rst", CHANGELOG + RELEASED)
    run_git(tree, "tag", f"v{VERSION}")
    return tree


@pytest.fixture
def tree(original: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(original, tmp_path / "tree")


@pytest.fixture(scope="session")
def built(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("built") / "dist"
    build(original, target, Path(sys.executable))
    write_manifest(target)
    return target


@pytest.fixture
def dist(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "dist")


@pytest.fixture
def release(dist: Path) -> Release:
    return open_release(dist)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packages]:
    with Packages(tmp_path_factory.mktemp("packages")) as packages:
        yield packages


@pytest.fixture
def indexes(packages: Packages, tmp_path: Path) -> Iterator[StandIns]:
    """Two empty ones."""
    for directory in packages.directories.values():
        for path in directory.iterdir():
            path.unlink()
    with StandIns(tmp_path, packages) as indexes:
        yield indexes


Enter = Callable[..., None]


@pytest.fixture
def enter(indexes: StandIns, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Become a job of GitHub in an environment."""

    def enter(environment: str, *, id_token: bool = True) -> None:
        for name in [name for name in os.environ if name[:8] == "ACTIONS_"]:
            monkeypatch.delenv(name)
        for name, value in indexes.job(environment, id_token=id_token).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RELEASE_PAUSES", "0 0")

    return enter


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# What is built


def test_place_and_umask_do_not_change_a_byte(
    original: Path, built: Path, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        again = tmp_path / "a-much-longer-name" / "dist"
        build(original, again, Path(sys.executable))
    finally:
        os.umask(before)
    write_manifest(again)
    assert (again / files.MANIFEST).read_text() == (built / files.MANIFEST).read_text()


def test_sdist_holds_no_trace_of_who_built_it(built: Path) -> None:
    with tarfile.open(open_release(built).sdist) as archive:
        members = archive.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert {m.mode for m in members} == {0o644}
    assert len({m.mtime for m in members}) == 1


def test_a_program_in_the_sdist_stays_one(tmp_path: Path) -> None:
    source = tmp_path / "run"
    source.touch(0o700)
    with tarfile.open(tmp_path / "a", "w") as archive:
        archive.add(source, "run")
    normalise(tmp_path / "a", tmp_path / "b", 0)
    with tarfile.open(tmp_path / "b") as archive:
        assert archive.getmember("run").mode == 0o755


def test_a_shallow_clone_is_refused(tree: Path, tmp_path: Path) -> None:
    commit(tree, "more", "")
    shallow = tmp_path / "shallow"
    run_git(tmp_path, "clone", "-q", "--depth=1", f"file://{tree}", str(shallow))
    with pytest.raises(ReleaseError, match=r"shallow.*git fetch --unshallow"):
        build(shallow, tmp_path / "dist", Path(sys.executable))


def test_a_failing_build_says_so(tree: Path, tmp_path: Path) -> None:
    commit(tree, "setup.py", "raise SystemExit(3)")
    with pytest.raises(ReleaseError, match=r"python.* failed: see its output above"):
        build(tree, tmp_path / "dist", Path(sys.executable))


# What is checked


def test_what_git_has_passes(original: Path, built: Path) -> None:
    check_contents(original, open_release(built))


def rewrite(dist: Path, name: str, content: str | None) -> Release:
    """Put a file into the wheel, or leave it out."""
    wheel = open_release(dist).wheel
    with zipfile.ZipFile(wheel) as archive:
        contents = {member: archive.read(member) for member in archive.namelist()}
    contents.pop(name, None)
    if content is not None:
        contents[name] = content.encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for member, data in contents.items():
            archive.writestr(member, data)
    return anew(dist)


def anew(dist: Path) -> Release:
    (dist / files.MANIFEST).unlink()
    write_manifest(dist)
    return open_release(dist)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pychrony/_speedups.so", "", "compiled code, pychrony/_speedups.so"),
        ("pychrony/data", "\x7fELF", "compiled code, pychrony/data"),
        ("pychrony/py.typed", None, "lacks pychrony/py.typed, which git has"),
        ("pychrony/more.py", "", "has pychrony/more.py, which git has not"),
        ("pychrony/__init__.py", "1", "has another pychrony/__init__.py than git"),
        ("tests/__init__.py", "", "has tests/__init__.py, which git has not"),
        (f"pychrony-{VERSION}.dist-info/WHEEL", "", "does not say that it is pure"),
    ],
)
def test_a_wheel_that_is_not_what_git_has_is_refused(
    original: Path, dist: Path, name: str, content: str | None, message: str
) -> None:
    with pytest.raises(ReleaseError, match=message):
        check_contents(original, rewrite(dist, name, content))


def test_an_sdist_that_lacks_a_file_is_refused(tree: Path, release: Release) -> None:
    commit(tree, "more", "")
    run_git(tree, "tag", "--force", f"v{VERSION}")
    with pytest.raises(ReleaseError, match=r"tar\.gz lacks more, which git has"):
        check_contents(tree, release)


def test_a_local_version_is_refused(tree: Path, tmp_path: Path) -> None:
    commit(tree, "more", "")
    build(tree, tmp_path / "dist", Path(sys.executable))
    write_manifest(tmp_path / "dist")
    with pytest.raises(ReleaseError, match=r"\+g\S+ is a local or development version"):
        check_contents(tree, open_release(tmp_path / "dist"))


def test_another_version_than_the_tag_is_refused(tree: Path, release: Release) -> None:
    run_git(tree, "tag", "--delete", f"v{VERSION}")
    run_git(tree, "tag", "v1.3")
    with pytest.raises(ReleaseError, match=r"1\.2\.0 was built, but .* v1\.3"):
        check_contents(tree, release)


def rename_wheel(dist: Path, new: str) -> None:
    open_release(dist).wheel.rename(dist / new)
    anew(dist)


def spoil(dist: Path) -> None:
    open_release(dist).wheel.write_bytes(b"")


def add(dist: Path, name: str, *, listed: bool) -> None:
    (dist / name).touch()
    if listed:
        anew(dist)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda d: rename_wheel(d, "pychrony-1.2.0-cp312-abi3-linux_x86_64.whl"),
            "comp",
        ),
        (lambda d: rename_wheel(d, "pychrony-1.2.1-py3-none-any.whl"), "different ver"),
        (lambda d: rename_wheel(d, "other-1.2.0-py3-none-any.whl"), "no file of a rel"),
        (lambda d: rename_wheel(d, "pychrony-1.2.0-1-py3-none-any.whl"), "no file of"),
        (lambda d: rename_wheel(d, "pychrony.zip"), "neither an sdist nor a wheel"),
        (
            lambda d: add(d, "pychrony-1.3-py3-none-any.whl", listed=True),
            "1 sdists and 2",
        ),
        (
            lambda d: add(d, "stray", listed=False),
            "holds stray, which is not in SHA256",
        ),
        (
            lambda d: (d / files.MANIFEST).unlink(),
            "has no SHA256SUMS: build the release",
        ),
        (lambda d: open_release(d).sdist.unlink(), "is missing: build again"),
        (spoil, "not the file that was built"),
    ],
)
def test_files_that_are_no_release_are_refused(
    dist: Path, damage: Callable[[Path], None], message: str
) -> None:
    with pytest.raises(ReleaseError, match=message):
        damage(dist)
        open_release(dist)


def test_another_manifest_than_of_the_build_job_is_refused(
    dist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELEASE_MANIFEST", files.sha256(dist / files.MANIFEST))
    open_release(dist)
    spoil(dist)
    with pytest.raises(ReleaseError, match="another job has replaced the artifact"):
        anew(dist)


def test_sha256sum_reads_the_manifest(built: Path) -> None:
    subprocess.run(["sha256sum", "--check", files.MANIFEST], cwd=built, check=True)


# What may be released


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """GitHub is not there to be asked."""
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)


@pytest.mark.usefixtures("unasked")
def test_preflight_passes(tree: Path) -> None:
    assert preflight(tree) == Version(VERSION)


def off_branch(tree: Path) -> None:
    run_git(tree, "checkout", "--quiet", "-b", "topic")
    commit(tree, "more", "")
    run_git(tree, "tag", "--force", f"v{VERSION}")


def unmentioned(tree: Path) -> None:
    commit(tree, "CHANGELOG.rst", CHANGELOG)
    run_git(tree, "tag", "--force", f"v{VERSION}")


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: (t / "new").touch(), r"not clean \(\?\? new\): commit, stash"),
        (lambda t: (t / "LICENSE").write_text(""), r"not clean \(M LICENSE\)"),
        (
            lambda t: run_git(t, "tag", "v1.3"),
            "more than one version tag, v1.2.0 and v1.3",
        ),
        (lambda t: commit(t, "more", ""), "has no version tag: check out the tag"),
        (off_branch, "not on main"),
        (unmentioned, "CHANGELOG.rst has no heading for 1.2.0"),
    ],
)
def test_preflight_refuses(
    tree: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(tree)
    with pytest.raises(ReleaseError, match=message):
        preflight(tree)


@pytest.mark.usefixtures("unasked")
def test_other_tags_do_not_count(tree: Path) -> None:
    run_git(tree, "tag", "nightly")
    run_git(tree, "tag", "v1.2.0-broken")
    assert preflight(tree) == Version(VERSION)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([("completed", "success")], None),
        ([("completed", "failure"), ("completed", "success")], None),
        ([("in_progress", "")], "CI still runs .* when it is green"),
        ([("completed", "failure")], "CI is not green .*https://example.org"),
        ([], "CI is not green .*it never ran"),
        (None, "CI's result cannot be read: HTTP 403"),
    ],
)
def test_preflight_asks_for_the_result_of_ci(
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runs: list[tuple[str, str]] | None,
    message: str | None,
) -> None:
    listed = [
        {"status": status, "conclusion": conclusion, "url": "https://example.org"}
        for status, conclusion in runs or []
    ]
    gh = tmp_path / "gh"
    reply = (
        "echo HTTP 403 >&2; exit 1" if runs is None else f"echo '{json.dumps(listed)}'"
    )
    gh.write_text(f"#!/bin/sh\n{reply}\n")
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/pychrony")
    monkeypatch.setenv("GH_TOKEN", "x")
    if message is None:
        preflight(tree)
    else:
        with pytest.raises(ReleaseError, match=message):
            preflight(tree)


def test_a_refusal_is_one_line_and_a_status(tree: Path) -> None:
    (tree / "new").touch()
    result = subprocess.run(
        [sys.executable, "-m", "release", "preflight"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".github")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert re.fullmatch("refused: the working tree is not clean.*\n", result.stderr)


# How a release is prepared


def test_prepare_makes_the_heading_and_the_tag(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tree, "1.3.0rc1")
    text = (tree / changelog.NAME).read_text()
    changelog.demand(tree, Version("1.3.0rc1"))
    assert text.index(changelog.UNRELEASED) < text.index("1.3.0rc1 (")
    assert text.index("1.3.0rc1 (") < text.index("- It works.")
    assert text.endswith(RELEASED)
    assert run_git(tree, "tag", "--points-at", "HEAD") == "v1.3.0rc1\n"
    assert run_git(tree, "log", "-1", "--format=%s") == "Release 1.3.0rc1\n"
    assert run_git(tree, "cat-file", "-t", "v1.3.0rc1") == "tag\n"
    told = capsys.readouterr().out
    assert "unsigned; nothing was pushed" in told
    assert "git push origin v1.3.0rc1" in told


def test_prepare_signs_where_git_can(tree: Path, tmp_path: Path) -> None:
    program = tmp_path / "gpg"
    program.write_text(
        "#!/bin/sh\ncat >/dev/null\n"
        "printf '\\n[GNUPG:] SIG_CREATED \\n' >&2\necho SIGNED\n"
    )
    program.chmod(0o755)
    git(tree, "config", "gpg.program", str(program))
    git(tree, "config", "user.signingkey", "a")
    prepare(tree, "1.3.0")
    assert "\nSIGNED" in run_git(tree, "cat-file", "tag", "v1.3.0")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.2.0", "the tag v1.2.0 is there already"),
        ("1.1", "1.1 is older than v1.2.0"),
        ("v1.3", "no version of a release"),
        ("1.03", "no version of a release"),
        ("1.3.0-rc1", "no version of a release"),
        ("1.3.dev1", "no version of a release"),
        ("1.3+local", "no version of a release"),
        ("next", "no version of a release"),
    ],
)
def test_prepare_refuses_versions(tree: Path, version: str, message: str) -> None:
    head = git(tree, "rev-parse", "HEAD")
    with pytest.raises(ReleaseError, match=message):
        prepare(tree, version)
    assert git(tree, "rev-parse", "HEAD") == head


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: (t / "new").touch(), "not clean"),
        (lambda t: run_git(t, "checkout", "-qb", "topic"), "topic is checked out"),
        (
            lambda t: run_git(t, "checkout", "-q", "--detach"),
            "a commit without a branch",
        ),
        (lambda t: commit(t, "CHANGELOG.rst", RELEASED), "nothing under Unreleased"),
        (
            lambda t: commit(t, "CHANGELOG.rst", changelog.UNRELEASED + RELEASED),
            "nothing under Unreleased",
        ),
    ],
)
def test_prepare_refuses(
    tree: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(tree)
    with pytest.raises(ReleaseError, match=message):
        prepare(tree, "1.3.0")


# How it gets to the indexes


def test_from_the_build_to_both_indexes(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    enter("testpypi")
    publishing.publish(release, "testpypi")
    enter("pypi")
    publishing.promote(release, "pypi")
    for served in indexes.indexes.values():
        assert names(served.directory) == sorted(release.digests)
        for path in served.directory.iterdir():
            assert files.sha256(path) == release.digests[path.name]
    # Nobody else was asked for anything.
    assert indexes.refused == []


def test_the_same_bytes_again_are_nothing_to_do(
    release: Release,
    indexes: StandIns,
    enter: Enter,
    capsys: pytest.CaptureFixture[str],
) -> None:
    enter("testpypi")
    publishing.publish(release, "testpypi")
    publishing.publish(release, "testpypi")
    assert indexes.indexes["testpypi"].uploads == 2
    assert "has 1.2.0 already, with the same digests" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "pychrony-1.2.0.tar.gz",
            "has another pychrony-1.2.0.tar.gz, SHA-256 e3b0c442",
        ),
        ("pychrony-1.2.0-py2-none-any.whl", "which is not of this build"),
    ],
)
def test_other_files_of_this_version_are_refused(
    release: Release, indexes: StandIns, enter: Enter, name: str, message: str
) -> None:
    (indexes.indexes["testpypi"].directory / name).touch()
    enter("testpypi")
    with pytest.raises(ReleaseError, match=message):
        publishing.publish(release, "testpypi")
    assert indexes.indexes["testpypi"].uploads == 0


def test_other_versions_do_not_matter(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    (indexes.indexes["testpypi"].directory / "pychrony-1.1.tar.gz").touch()
    enter("testpypi")
    publishing.publish(release, "testpypi")


def test_a_half_uploaded_release_is_completed(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    served = indexes.indexes["testpypi"]
    shutil.copy(release.sdist, served.directory)
    enter("testpypi")
    publishing.publish(release, "testpypi")
    assert served.uploads == 1
    assert names(served.directory) == sorted(release.digests)


@pytest.mark.parametrize(
    ("fault", "uploads"),
    [
        # The first is sent again, then the second.
        (Fault.CUT_SENDING, 3),
        # The first arrived: only the second is left.
        (Fault.CUT_AFTER_STORING, 2),
        # twine sends the first once more and is told that it is there.
        (Fault.ERROR_AFTER_STORING, 3),
    ],
)
def test_an_upload_that_is_cut_goes_on(
    release: Release, indexes: StandIns, enter: Enter, fault: Fault, uploads: int
) -> None:
    served = indexes.indexes["testpypi"]
    served.faults = [fault]
    enter("testpypi")
    publishing.publish(release, "testpypi")
    assert served.uploads == uploads
    assert names(served.directory) == sorted(release.digests)


def test_an_upload_that_is_cut_again_and_again_can_be_resumed(
    release: Release,
    indexes: StandIns,
    enter: Enter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = indexes.indexes["testpypi"]
    served.faults = [Fault.CUT_AFTER_STORING]
    enter("testpypi")
    monkeypatch.setenv("RELEASE_PAUSES", "")
    with pytest.raises(
        index.UnavailableError, match="upload to testpypi was interrupted"
    ):
        publishing.publish(release, "testpypi")
    publishing.publish(release, "testpypi")
    assert served.uploads == 2


def test_a_name_that_was_used_and_deleted_is_refused(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    served = indexes.indexes["testpypi"]
    served.hidden = True
    shutil.copy(release.sdist, served.directory)
    enter("testpypi")
    with pytest.raises(ReleaseError, match="a name is never used twice: release a new"):
        publishing.publish(release, "testpypi")


def test_an_index_that_is_down_is_waited_for(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    indexes.indexes["testpypi"].down = 2
    enter("testpypi")
    publishing.publish(release, "testpypi")
    assert names(indexes.indexes["testpypi"].directory) == sorted(release.digests)


def test_an_index_that_stays_down_ends_the_waiting(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    indexes.indexes["testpypi"].down = 100
    enter("testpypi")
    with pytest.raises(
        ReleaseError, match=r"does not answer .*503.* run this again later"
    ):
        publishing.publish(release, "testpypi")
    assert indexes.indexes["testpypi"].uploads == 0


def test_promoting_sends_what_the_test_index_serves(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    enter("testpypi")
    publishing.publish(release, "testpypi")
    indexes.indexes["testpypi"].tampered = True
    enter("pypi")
    with pytest.raises(
        ReleaseError, match=r"served other bytes .* do not promote, yank"
    ):
        publishing.promote(release, "pypi")
    assert indexes.indexes["pypi"].uploads == 0


def test_a_file_that_was_replaced_on_the_test_index_is_refused(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    enter("testpypi")
    publishing.publish(release, "testpypi")
    served = indexes.indexes["testpypi"].directory / release.wheel.name
    served.write_bytes(served.read_bytes() + b"!")
    with pytest.raises(ReleaseError, match="the index has another"):
        verifying.verify(release, "testpypi")
    enter("pypi")
    with pytest.raises(ReleaseError, match="the index has another"):
        publishing.promote(release, "pypi")
    assert indexes.indexes["pypi"].uploads == 0


def test_what_is_not_on_the_test_index_is_not_promoted(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    enter("pypi")
    with pytest.raises(ReleaseError, match=r"does not have .*: publish there first"):
        publishing.promote(release, "pypi")
    with pytest.raises(ReleaseError, match="with nox -s promote -- pypi"):
        publishing.publish(release, "pypi")
    with pytest.raises(ReleaseError, match="promote uploads to pypi alone"):
        publishing.promote(release, "testpypi")
    with pytest.raises(ReleaseError, match=r"does not list .*: publish it"):
        verifying.verify(release, "pypi")
    assert indexes.indexes["pypi"].uploads == 0


def test_a_prerelease_stops_at_the_test_index(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    version = Version("1.2.0rc1")
    early = Release(
        release.directory, release.digests, version, release.sdist, release.wheel
    )
    enter("pypi")
    with pytest.raises(ReleaseError, match="is a pre-release"):
        publishing.promote(early, "pypi")


@pytest.mark.parametrize("value", [None, "", "pypi"])
def test_an_index_without_an_address_is_refused(
    release: Release, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIMPLE_INDEX", raising=False)
    if value is not None:
        monkeypatch.setenv("SIMPLE_INDEX", value)
    with pytest.raises(ReleaseError, match=r"SIMPLE_INDEX is .*: set it"):
        publishing.publish(release, "testpypi")


# Trusted publishing


def test_only_a_job_uploads(
    release: Release, indexes: StandIns, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter("testpypi")
    monkeypatch.delenv("GITHUB_ACTIONS")
    with pytest.raises(ReleaseError, match=r"only release\.yml on GitHub uploads"):
        publishing.publish(release, "testpypi")
    assert indexes.indexes["testpypi"].uploads == 0


def test_the_wrong_environment_is_refused(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    enter("pypi")
    with pytest.raises(ReleaseError, match=r"somebody/pychrony.* environment testpypi"):
        publishing.publish(release, "testpypi")
    assert indexes.indexes["testpypi"].uploads == 0


def test_a_job_that_may_not_ask_who_it_is_is_refused(
    release: Release, indexes: StandIns, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter("testpypi", id_token=False)
    # Nor would a token help that somebody has left there.
    monkeypatch.setenv("TWINE_USERNAME", "__token__")
    monkeypatch.setenv("TWINE_PASSWORD", "secret")
    with pytest.raises(
        ReleaseError, match=r"permissions: id-token: write` in release\."
    ):
        publishing.publish(release, "testpypi")
    assert indexes.indexes["testpypi"].uploads == 0


def test_attestations_go_with_their_files(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    for name in release.digests:
        (release.directory / f"{name}{files.ATTESTATION}").write_text("{}")
    enter("testpypi")
    publishing.publish(open_release(release.directory), "testpypi")
    enter("pypi")
    publishing.promote(release, "pypi")
    assert [served.attested for served in indexes.indexes.values()] == [2, 2]


def test_one_attestation_alone_is_refused(
    release: Release, indexes: StandIns, enter: Enter
) -> None:
    (release.directory / f"{release.wheel.name}{files.ATTESTATION}").write_text("{}")
    enter("testpypi")
    with pytest.raises(ReleaseError, match="of the attestations; sign again"):
        publishing.publish(release, "testpypi")
    assert indexes.indexes["testpypi"].uploads == 0
