"""What version each kind of source builds: docs/releasing.rst has the same table."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version
from project import commit, git

BUILD = (
    "import setuptools.build_meta as b; print(b.prepare_metadata_for_build_wheel('.'))"
)
PUBLISHED = Version("2.0.3")


def version_of(source: Path) -> str:
    """What pip would build there, with the settings of this project."""
    command = [sys.executable, "-W", "ignore", "-c", BUILD]
    result = subprocess.run(
        command, cwd=source, capture_output=True, text=True, check=False
    )
    if result.returncode:
        return result.stderr.strip().splitlines()[-1]
    name = result.stdout.strip().splitlines()[-1]
    return re.sub(r"\+g\w+", "+g", name.split("-")[1].removesuffix(".dist"))


def archive(tree: Path, target: Path) -> Path:
    """What GitHub offers as source code of a commit."""
    target.mkdir()
    packed = subprocess.run(
        ["git", "archive", "HEAD"], cwd=tree, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x"], cwd=target, input=packed.stdout, check=True)
    return target


# A history of tags, and what the commit and its source archive are then.
HISTORY = [
    ([], "3.0.0.dev1+g", "0.0"),
    (["v3.0.0rc1"], "3.0.0rc1", "3.0.0rc1"),
    (["v3.0.0rc1", ""], "3.0.0rc2.dev1+g", "3.0.0rc2.dev1+g"),
    (["v3.0.0"], "3.0.0", "3.0.0"),
    (["v3.0.0", ""], "3.0.1.dev1+g", "3.0.1.dev1+g"),
]
# None of these is a version, before or after one that is.
STRAY = [
    "v3.1.0-test",
    "v3x",
    "v4.0a",
    "v4.0cr1",
    "v5.0b1.post1",
    "v1v2",
    "v6a1b2",
    "v6r1",
]


@pytest.mark.parametrize(("tags", "commits", "archives"), HISTORY)
def test_version(
    fresh: Path, tmp_path: Path, tags: list[str], commits: str, archives: str
) -> None:
    for stray in STRAY:
        git(fresh, "tag", stray)
    for number, tag in enumerate(tags):
        commit(fresh, "LICENSE", str(number), tag)
    for stray in STRAY:
        git(fresh, "tag", f"{stray}-")
    assert version_of(archive(fresh, tmp_path / "archive")) == archives
    git(fresh, "worktree", "add", "--quiet", str(tmp_path / "worktree"))
    for source in (fresh, tmp_path / "worktree"):
        assert version_of(source) == commits
    assert Version(commits.replace("+g", "")) > PUBLISHED


def test_version_of_a_dirty_tree(tree: Path) -> None:
    (tree / "LICENSE").write_text("")
    assert re.fullmatch(r"3\.1\.1\.dev0\+g\.d\d{8}", version_of(tree))


def test_version_without_git(tree: Path) -> None:
    shutil.rmtree(tree / ".git")
    assert version_of(tree) == "3.0.0.dev0"


def test_a_shallow_clone_has_no_version(tree: Path, tmp_path: Path) -> None:
    commit(tree, "LICENSE", "")
    clone = tmp_path / "clone"
    git(tree, "clone", "-q", "--depth=1", f"file://{tree}", str(clone))
    assert "git fetch --unshallow" in version_of(clone)
