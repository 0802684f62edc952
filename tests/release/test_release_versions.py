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

PUBLISHED = Version("2.0.3")
# Of a commit, a source archive of it, and with a change that is not committed, after
# each history of tags; the archive is what GitHub offers.
HISTORY = [
    ([], "3.0.0.dev1+g", "0.0", "3.0.0.dev1+g.d"),
    (["v3.0.0rc1"], "3.0.0rc1", "3.0.0rc1", "3.0.0rc2.dev0+g.d"),
    (["v3.0.0rc1", ""], "3.0.0rc2.dev1+g", "3.0.0rc2.dev1+g", "3.0.0rc2.dev1+g.d"),
    (["v3.0.0"], "3.0.0", "3.0.0", "3.0.1.dev0+g.d"),
    (["v3.0.0", ""], "3.0.1.dev1+g", "3.0.1.dev1+g", "3.0.1.dev1+g.d"),
]
# None of these is a version, before or after one that is.
STRAY = [
    *("v3.1.0-test", "v3x", "v4.0a", "v4.0cr1", "v5.0b1.post1", "v1v2", "v6a1b2"),
    *("v6r1", "nothing"),
]


def version_of(source: Path) -> str:
    """What a build there gets, with the settings of this project."""
    command = [sys.executable, "-W", "ignore", "-m", "setuptools_scm"]
    result = subprocess.run(
        command, cwd=source, capture_output=True, text=True, check=False
    )
    if result.returncode:
        return result.stderr.strip().splitlines()[-1]
    # The commit and the day are never the same.
    return re.sub(r"\+g\w+(\.d)?\d*", r"+g\1", result.stdout.strip())


@pytest.mark.parametrize(("tags", "commits", "archives", "dirty"), HISTORY)
def test_version(
    untagged: Path, tmp_path: Path,
    tags: list[str], commits: str, archives: str, dirty: str,
) -> None:  # fmt: skip
    for stray in STRAY:
        git(untagged, "tag", stray)
    for number, tag in enumerate(tags):
        commit(untagged, "LICENSE", str(number), tag)
    for stray in STRAY:
        git(untagged, "tag", f"{stray}-")
    git(untagged, "archive", "--prefix=archive/", f"-o{tmp_path}/archive.tar", "HEAD")
    subprocess.run(["tar", "-xf", "archive.tar"], cwd=tmp_path, check=True)
    assert version_of(tmp_path / "archive") == archives
    git(untagged, "worktree", "add", "--quiet", str(tmp_path / "worktree"))
    assert version_of(tmp_path / "worktree") == commits
    assert version_of(untagged) == commits
    assert Version(commits.replace("+g", "")) > PUBLISHED
    (untagged / "LICENSE").write_text("not committed")
    assert version_of(untagged) == dirty


def test_version_without_git(tree: Path, tmp_path: Path) -> None:
    commit(tree, "LICENSE")
    git(tree, "clone", "-q", "--depth=1", f"file://{tree}", str(tmp_path / "shallow"))
    assert "git fetch --unshallow" in version_of(tmp_path / "shallow")
    shutil.rmtree(tree / ".git")
    assert version_of(tree) == "3.0.0.dev0"
