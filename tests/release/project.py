"""A little repository with this project's settings, for the tests of releases."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from release import build, tools

ROOT = Path(__file__).parents[2]
VERSION = "3.1.0"
CHANGELOG = "Changelog\n=========\n\nUnreleased\n----------\n\n- It works.\n"
RELEASED = f"\n{VERSION} (2026-01-02)\n------------------\n\nAdded\n~~~~~\n\n- All.\n"


def git(tree: Path, *arguments: str) -> str:
    return subprocess.check_output(["git", "-C", str(tree), *arguments], text=True)


def commit(tree: Path, name: str, content: str, tag: str = "") -> None:
    (tree / name).write_text(content)
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", name)
    if tag:
        git(tree, "tag", tag)


@pytest.fixture(scope="session")
def own_git() -> Iterator[None]:
    """Neither the settings of the user nor a hook that runs this."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT")]:
            patch.delenv(name)
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield


@pytest.fixture(scope="session")
def untagged(own_git: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "setup.cfg", "README.rst", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in (".git_archival.txt", ".gitattributes", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    (tree / "pychrony").mkdir()
    (tree / "pychrony" / "py.typed").touch()
    (tree / "pychrony" / "__init__.py").write_text('"""A library."""\n')
    git(tree, "init", "--quiet", "--initial-branch", "main")
    git(tree, "config", "user.name", "A")
    git(tree, "config", "user.email", "a@example.org")
    commit(tree, "CHANGELOG.rst", CHANGELOG + RELEASED)
    return tree


@pytest.fixture
def fresh(untagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil, which is the current directory."""
    tree = shutil.copytree(untagged, tmp_path / "tree")
    monkeypatch.chdir(tree)
    return tree


@pytest.fixture
def tree(fresh: Path) -> Path:
    git(fresh, "tag", f"v{VERSION}")
    return fresh


@pytest.fixture(scope="session")
def built(untagged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build job makes of the tag, with a wheelhouse of nothing."""
    tree = shutil.copytree(untagged, tmp_path_factory.mktemp("built") / "tree")
    git(tree, "tag", f"v{VERSION}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tree)
        build.build(tools.DIST, Path(sys.executable))
        (tree / "dist" / f"pychrony_wheelhouse-{VERSION}.tar.gz").write_bytes(b"")
        (tree / "dist" / tools.NOTES).write_text("- It works.\n")
        tools.write_manifest(tools.DIST)
    return tree / "dist"


@pytest.fixture
def dist(built: Path, tree: Path) -> Path:
    return shutil.copytree(built, tree / "dist")
