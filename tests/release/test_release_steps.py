"""The steps of a release, in a little repository: what is made, and what refused."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version
from pypi_simple import PYPI_SIMPLE_ENDPOINT
from release import build, prepare, rehearse, tools, verify, wheelhouse
from release.tools import ReleaseError
from twine.utils import TEST_REPOSITORY

ROOT = Path(__file__).parents[2]
VERSION = "3.1.0"
SDIST, WHEEL, _ = tools.distributions(VERSION)
INFO = f"pychrony-{VERSION}.dist-info"
CHANGELOG = "Changelog\n=========\n\nUnreleased\n----------\n\n- It works.\n"
RELEASED = f"\n{VERSION} (2026-01-02)\n------------------\n\nAdded\n~~~~~\n\n- All.\n"
COMMIT = "git add .; git commit -qm more --allow-empty"
AGAIN = f"{COMMIT}; git tag -f v{VERSION}"
UNTAG = f"git tag -d v{VERSION}"
SUMS = "cd dist; sha256sum [!S]* > SHA256SUMS"


def sh(script: str) -> str:
    """What a script says in the current directory; if it fails, its last line."""
    command = ("sh", "-ec", script)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.splitlines()[-1] if done.returncode else done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With the settings of this project; in dist/ is what is built of its tag."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch, rehearse.indexes(place) as addresses:
        # Neither the settings of the user nor a hook that runs this.
        for name in [name for name in os.environ if name.startswith("GIT")]:
            patch.delenv(name)
        none = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        places = {"PYPI": f"{place}/pypi", "TESTPYPI": f"{place}/testpypi"}
        for name, value in {**none, **addresses, **places}.items():
            patch.setenv(name, value)
        # What the tests run with has all that the lock lists; there is no network.
        patch.setattr(tools, "environment", lambda *_: sys.executable)
        patch.setattr(wheelhouse, "fill", lambda tree, *_: tree.mkdir())
        patch.setattr(verify, "PAUSES", ())
        (place / "tree" / "pychrony").mkdir(parents=True)
        patch.chdir(place / "tree")
        Path("CHANGELOG.rst").write_text(CHANGELOG + RELEASED)
        sh("touch pychrony/__init__.py pychrony/py.typed")
        sh(f"cd {ROOT}; cp py*.toml setup.cfg README* LICENSE .git[ia_]* $OLDPWD")
        sh("git init -q -b main; git config user.name a; git config user.email a")
        sh(AGAIN)
        before = os.umask(0o077)
        build.main(sys.executable)
        os.umask(before)
        yield place / "tree"


@pytest.fixture(autouse=True)
def tree(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy to spoil, which is the current directory, and empty indexes."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "tree"))
    sh("rm -f $PYPI/* $TESTPYPI/*")


def with_file(name: str) -> str:
    append = f"zipfile.ZipFile('dist/{WHEEL}', 'a').writestr('{name}', '')"
    return f'{sys.executable} -c "import zipfile; {append}"; {SUMS}'


# A step, what is done in the repository before, and how the step then refuses.
REFUSED = [
    ("prepare 3.06", "", "no version of a release"),
    ("prepare 3.6.dev1", "", "no version of a release"),
    ("prepare 3.2.0", "touch new", r"not clean \(\?\? new, 1 in all"),
    ("prepare 3.2.0", "git checkout -qb topic", "topic is checked out"),
    ("prepare 3.2.0", f"echo > CHANGELOG.rst; {AGAIN}", "nothing under Unreleased"),
    ("prepare 3.0.9", "", "git has 3.1.0 already, so 3.0.9 cannot be released"),
    ("prepare 3.2.0", "touch $PYPI/pychrony-3.4.tar.gz", r"\bpypi has 3.4 already"),
    ("prepare 3.5", "touch $TESTPYPI/pychrony-3.5.tar.gz", "testpypi has 3.5 already"),
    ("build", "git rev-parse HEAD > .git/shallow", "shallow.*git fetch --unshallow"),
    ("build", "git tag v1.3", "has v1.3 and v3.1.0: a release has one"),
    ("build", f"{UNTAG}; git tag v3.2.0", "has nothing under 3.2.0"),
    ("build", f"echo 1/0 > setup.py; {AGAIN}", r"it cannot be built \("),
    ("check", f"{UNTAG}; git tag v3.2.0", f"{WHEEL}.* tag here is v3.2.0"),
    ("check", f"rm dist/*house*; {SUMS}", "dist has NOTES.md.* build again"),
    ("check", f"touch pychrony/more.py; {AGAIN}", f"{SDIST} is unlike git in .*more"),
    ("check", with_file("pychrony/more.py"), f"{WHEEL} is unlike git in .*more"),
    ("check", with_file(f"{INFO}/entry_points.txt"), "another build of .*whl differs"),
    ("check", f"printf '\\0' > pychrony/a; {AGAIN}", "pychrony/a is compiled"),
    ("check", f"touch $PYPI/{WHEEL}", rf"\bpypi has another {WHEEL} than was built"),
    ("check", "rm -r dist", "nothing was built"),
    ("check", "echo >> dist/NOTES.md", "a file is not as"),
    ("check", "touch dist/.hidden", "there are files that"),
    ("MANIFEST= check", "", "SHA256SUMS is not that of the build job"),
    ("GIT_TEST_ASSUME_DIFFERENT_OWNER=1 check", "", "safe.directory"),
    ("verify pypi", "", r"\bpypi has no project pychrony: if it was uploaded"),
    ("verify pypi", "touch $PYPI/pychrony-3.tar.gz", f"does not list {WHEEL}"),
    ("REHEARSAL_pypi=http://127.0.0.1:9/ verify pypi", "", "cannot be used: .*refused"),
]


@pytest.mark.parametrize(("step", "damage", "message"), REFUSED)
def test_a_step_refuses_in_one_line(
    step: str, damage: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sh(damage)
    variables = [word for word in step.split() if "=" in word]
    for variable in variables:
        monkeypatch.setenv(*variable.split("=", 1))
    name, *arguments = step.split()[len(variables) :]
    main = importlib.import_module(f"release.{name}").main
    with pytest.raises(ReleaseError, match=f"^refused: .*{message}") as refusal:
        main(*(arguments or [sys.executable]))
    assert "\n" not in str(refusal.value)


def test_who_builds_where_does_not_change_a_byte(tmp_path: Path) -> None:
    again = tmp_path / "a-much-longer-name" / "dist"
    build.build(again, sys.executable)
    assert tools.digests_in(again).items() < tools.digests_in(tools.DIST).items()
    members = sh(f"tar --numeric-owner -tvf dist/{SDIST}").splitlines()
    assert {line[:14] for line in members} == {"-rw-r--r-- 0/0", "drwxr-xr-x 0/0"}


def test_a_reader_on_the_index_reaches_the_source_and_the_pages() -> None:
    with zipfile.ZipFile(f"dist/{WHEEL}") as archive:
        text = archive.read(f"{INFO}/METADATA").decode()
    for name in ("Documentation", "Source", "Changelog", "Issues"):
        assert f"\nProject-URL: {name}, https://" in text
    assert not re.search(r"``docs/|^\.\. _[^:]+: (?!https://)", text, re.MULTILINE)


def test_a_final_release_after_a_candidate() -> None:
    prepare.main("3.2.0rc1")
    assert Path("CHANGELOG.rst").read_text() == CHANGELOG + RELEASED
    assert sh(f"git cat-file -t v3.2.0rc1; {COMMIT}") == "tag\n"
    prepare.main("3.2.0")
    assert sh("git log -1 --format=%s") == "Release 3.2.0\n"
    assert prepare.notes(Version("3.2.0")) == "- It works.\n"
    assert prepare.notes(Version(VERSION)) == "### Added\n\n- All.\n"
    assert Path("CHANGELOG.rst").read_text().endswith(f"- It works.\n{RELEASED}")


def test_each_index_is_the_one_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REHEARSAL_pypi")
    assert verify.address("pypi") == PYPI_SIMPLE_ENDPOINT
    assert verify.INDEXES["testpypi"] == TEST_REPOSITORY.replace("legacy", "simple")


def test_what_is_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / ".github"))
    # The last is the commit of a release, before its tag: CI rehearses it, too.
    released = f"sed -i '/It works/d' CHANGELOG.rst; {COMMIT}"
    for done, version in (("", "3.1.0"), (UNTAG, "9999.0"), (released, "3.1.0")):
        sh(f"rm -rf ../clone; {done}")
        assert rehearse.clone(Path("../clone")) == f"v{version}"
        assert sh("cd ../clone; git tag --points-at HEAD") == f"v{version}\n"
        assert f"\n{version} (" in Path("../clone/CHANGELOG.rst").read_text()


@pytest.mark.parametrize(("tag", "pre"), [("v3.1.0", "false"), ("v3.1.0rc1", "true")])
def test_scripts_of_the_release(
    tag: str, pre: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sh(f"cp -r {ROOT}/.github .; {AGAIN}; mv dist ../built; git clone -q . ../work")
    machine = rehearse.Machine(tmp_path, tag)
    python = f"echo 'exec {sys.executable} \"$@\"' > .locked/bin/python"
    # What needs the network or takes long has tests of its own.
    machine.changes = {
        **machine.changes,
        ".venv/bin/nox --stop": "cp -r ../built dist; echo nox --stop",
        ".venv/bin/nox": "echo nox",
        ".github/scripts/install-nox": "echo install",
        ".github/scripts/install ": (
            f"mkdir -p .locked/bin; {python}; chmod +x .locked/bin/python; echo "
        ),
    }
    machine.run()
    told = capfd.readouterr().out
    assert "  $ .github/scripts/preflight\n" in told
    assert "nox --stop-on-first-error -s build check" in told
    assert f"--prerelease={pre} --title {tag} --notes-file dist/NOTES.md" in told
    for name in tools.distributions(VERSION):
        assert f"attestations/{name}.publish.attestation" in told
    assert sh("ls $PYPI") == sh("ls $TESTPYPI") == f"{WHEEL}\n{SDIST}\n"


def test_preflight() -> None:
    script = f". {ROOT}/.github/scripts/preflight"
    for runs, told in (
        ("completed failure, completed success", ""),
        ("completed failure", "(completed failure): wait"),
        ("", "(it never ran)"),
    ):
        found = sh(f"GITHUB_REPOSITORY=a/b; gh() {{ echo {runs}; }}; {script}")
        assert told in found and bool(told) == bool(found)
    assert "not on main" in sh(f"git checkout -qb topic; {COMMIT}; {script}")


ARCHIVE = "git archive --prefix=archive/ HEAD | tar -x -C ..; cd ../archive"
DIRTY = "echo >> LICENSE"
SHALLOW = f"{COMMIT}; git clone --depth=1 file://$PWD ../more; cd ../more"
# None of these is a version.
STRAY = "v3.1.0-test v3x v4.0a v4.0cr1 v5.0b1.post1 v1v2 v6a1b2 v6r1 nothing"
STRAY_TAGS = f"for tag in {STRAY}; do git tag $tag; done"


@pytest.mark.parametrize(
    ("done", "version"),
    [
        ("", "3.0.0.dev1+g"),
        (STRAY_TAGS, "3.0.0.dev1+g"),
        (DIRTY, "3.0.0.dev1+g.d"),
        (ARCHIVE, "0.0"),
        ("git tag v3.0.0rc1", "3.0.0rc1"),
        (f"git tag v3.0.0rc1; {DIRTY}", "3.0.0rc2.dev0+g.d"),
        (f"git tag v3.0.0rc1; {COMMIT}", "3.0.0rc2.dev1+g"),
        (f"git tag v3.0.0; {STRAY_TAGS}", "3.0.0"),
        (f"git tag v3.0.0; {DIRTY}", "3.0.1.dev0+g.d"),
        (f"git tag v3.0.0; {ARCHIVE}", "3.0.0"),
        (f"git tag v3.0.0; {COMMIT}; {STRAY_TAGS}", "3.0.1.dev1+g"),
        (f"git tag v3.0.0; {COMMIT}; {DIRTY}", "3.0.1.dev1+g.d"),
        (f"git tag v3.0.0; {COMMIT}; {ARCHIVE}", "3.0.1.dev1+g"),
        ("git tag v3.0.0; git worktree add ../more; cd ../more", "3.0.0"),
        (SHALLOW, '"git fetch --unshallow"'),
        ("rm -r .git", "3.0.0.dev0"),
    ],
)
def test_version(done: str, version: str) -> None:
    """What a build gets: docs/releasing.rst has the same table."""
    told = sh(f"{UNTAG}\n{done}\n{sys.executable} -W ignore -m setuptools_scm")
    # The commit and the day are never the same.
    told = re.sub(r"\+g\w+(\.d)?\d*", r"+g\1", told.splitlines()[-1])
    assert f" {told}".endswith(f" {version}")
