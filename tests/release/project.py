"""A little repository with this project's settings, for the tests of releases."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from release import build, rehearse, tools

ROOT = Path(__file__).parents[2]
VERSION = "3.1.0"
CHANGELOG = "Changelog\n=========\n\nUnreleased\n----------\n\n- It works.\n"
RELEASED = f"\n{VERSION} (2026-01-02)\n------------------\n\nAdded\n~~~~~\n\n- All.\n"


def git(tree: Path, *arguments: str) -> str:
    return subprocess.check_output(["git", "-C", str(tree), *arguments], text=True)


def commit(tree: Path, name: str, content: str = "", tag: str = "") -> None:
    (tree / name).write_text(content)
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", name)
    if tag:
        git(tree, "tag", tag)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The repository, and beside it what the build job makes of the tag."""
    tree = tmp_path_factory.mktemp("made") / "tree"
    (tree / "pychrony").mkdir(parents=True)
    (tree / "pychrony" / "py.typed").touch()
    (tree / "pychrony" / "__init__.py").write_text('"""A library."""\n')
    settings = (".git_archival.txt", ".gitattributes", ".gitignore")
    for name in ("pyproject.toml", "setup.cfg", "README.rst", "LICENSE", *settings):
        shutil.copy(ROOT / name, tree)
    with pytest.MonkeyPatch.context() as patch:
        # Neither the settings of the user nor a hook that runs this.
        for name in [name for name in os.environ if name.startswith("GIT")]:
            patch.delenv(name)
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        git(tree, "init", "--quiet", "--initial-branch", "main")
        for setting in ("user.name", "user.email"):
            git(tree, "config", setting, "a@example.org")
        commit(tree, "CHANGELOG.rst", CHANGELOG + RELEASED, f"v{VERSION}")
        # What the tests run with has all that the lock lists.
        patch.setattr(tools, "environment", lambda *_: Path(sys.executable))
        patch.chdir(tree)
        build.main(sys.executable)
        tools.DIST.rename("../dist")
        yield tree


@pytest.fixture
def tree(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil, which is the current directory."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "tree"))
    return tmp_path / "tree"


@pytest.fixture
def untagged(tree: Path) -> Path:
    git(tree, "tag", "--delete", f"v{VERSION}")
    return tree


@pytest.fixture
def dist(made: Path, tree: Path) -> Path:
    """A copy of what was built, with a wheelhouse of nothing."""
    shutil.copytree(made.parent / "dist", tree / "dist")
    (tree / "dist" / f"pychrony_wheelhouse-{VERSION}.tar.gz").touch()
    tools.write_manifest(tree / "dist")
    return tree / "dist"


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[Path]:
    """Two empty ones: directories in which pypiserver serves what one puts there."""
    with rehearse.indexes(tmp_path):
        yield tmp_path
