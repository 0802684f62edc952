"""Everything one does with this repository: `nox -l` lists it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).with_name("tests")))

import provision

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "typecheck", "tests", "coverage"]

PROJECT = nox.project.load_toml("pyproject.toml")
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")


def interpreter(version: str) -> str | None:
    """A CPython of this version that runs; a shim of pyenv alone does not."""
    probe = "import sys; print(sys.implementation.name, *sys.version_info[:2], sep='.')"
    for path in candidates(version):
        try:
            output = subprocess.check_output(
                [path, "-I", "-c", probe], stderr=subprocess.DEVNULL, text=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        if output.strip() == f"cpython.{version}":
            return path
    return None


def candidates(version: str) -> Iterator[str]:
    name = f"python{version}"
    yield sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", "~/.local/share/uv/python"))
    for store, pattern in (
        (pyenv / "versions", f"{version}.*"),
        (uv.expanduser(), f"cpython-{version}.*"),
    ):
        for directory in sorted(store.glob(pattern), reverse=True):
            yield str(directory / "bin" / name)
    for folder in os.get_exec_path():
        yield str(Path(folder, name))


PYTHONS = {version: path for version in VERSIONS if (path := interpreter(version))}


@functools.cache
def provided() -> dict[str, str]:
    return provision.environment(provision.parts())


def parts(session: nox.Session) -> dict[str, str]:
    """The real libchrony and chronyd, found or fetched once for all sessions."""
    try:
        return provided()
    except provision.ProvisionError as error:
        session.error(str(error))


@functools.cache
def tell_missing() -> None:
    missing = [version for version in VERSIONS if version not in PYTHONS]
    if missing:
        print(f"Not on this machine, so not tested: CPython {', '.join(missing)}")


def group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PROJECT, name)


# All extras, for the tests and whoever reads their types.
EVERYTHING = f".[{','.join(PROJECT['project']['optional-dependencies'])}]"


def install(session: nox.Session, *requirements: str, package: str = ".") -> None:
    """Install the package as users get it, from this tree as it is now."""
    # setuptools would take modules from there that have been deleted since,
    # and uv what it built before.
    shutil.rmtree("build", ignore_errors=True)
    anew = ["--reinstall-package", "pychrony"] if session.venv_backend == "uv" else []
    session.install(*anew, package, *requirements)


@nox.session
def demo(session: nox.Session) -> None:
    """Start a little NTP network on loopback and check its client."""
    install(session)
    # On Ctrl-C there are daemons to stop.
    session.run(
        *("python", "tests/demo.py"),
        env=parts(session),
        interrupt_timeout=10,
        terminate_timeout=10,
    )


@nox.session
@nox.parametrize(
    "python", [nox.param(PYTHONS[version], id=version) for version in PYTHONS]
)
def tests(session: nox.Session) -> None:
    """Test with every CPython of this machine; arguments go to pytest."""
    tell_missing()
    install(session, *group("tests"), package=EVERYTHING)
    session.run(
        *("pytest", *session.posargs),
        env=parts(session),
        interrupt_timeout=10,
        terminate_timeout=10,
    )


@nox.session
def coverage(session: nox.Session) -> None:
    """Prove that the tests reach every line and branch of the package."""
    install(session, *group("tests"), "coverage>=7.10", package=EVERYTHING)
    env = {**parts(session), "COVERAGE_FILE": f"{session.create_tmp()}/coverage"}
    run = ("coverage", "run", "-m", "pytest", "-m", "not interrupts")
    session.run("coverage", "erase", env=env)
    session.run(*run, *session.posargs, env=env)
    session.run("coverage", "combine", "-q", env=env)
    session.run("coverage", "report", env=env)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare the speed with that of others; arguments pick parts, see --help."""
    install(session, *group("bench"))
    # With an interpreter of its own, as it has the same name.
    old = Path(session.create_tmp(), "2.0.3").resolve()
    session.run("python", "-m", "venv", str(old))
    pip = (str(old / "bin/python"), "-m", "pip", "install", "--quiet")
    # If there is no wheel for this Python, its column says so.
    session.run(
        *(*pip, "--only-binary", "pychrony", "pychrony==2.0.3"), success_codes=(0, 1)
    )
    session.run(
        *("python", "tests/bench.py", f"--old={old}/bin/python", *session.posargs),
        env=parts(session),
        interrupt_timeout=10,
        terminate_timeout=10,
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style, and that imports go one way."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check the types."""
    install(session, *group("typecheck"), package=EVERYTHING)
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages into docs/_build/html and run their examples."""
    install(session, *group("docs"), package=EVERYTHING)
    strictly = ("-W", "--keep-going", "-n")
    for builder in ("html", "doctest"):
        target = f"docs/_build/{builder}"
        session.run(
            *("sphinx-build", *strictly, "-b", builder, "docs", target),
            env=parts(session),
        )


@nox.session
def generate(session: nox.Session) -> None:
    """Write pychrony/_libchrony.py anew from pychrony/_cdef.py."""
    session.install("cffi", "setuptools")
    session.run("python", "pychrony/_cdef.py", "pychrony/_libchrony.py")


@nox.session
def build(session: nox.Session) -> None:
    """Build the distributions into dist/ and check them."""
    session.install(*group("build"))
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))
