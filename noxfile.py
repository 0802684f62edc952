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

sys.path.insert(0, str(Path(__file__).with_name("tests") / "tools"))

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
with_every_python = nox.parametrize(
    "python", [nox.param(path, id=version) for version, path in PYTHONS.items()]
)


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


# For the tests and whoever reads their types.
ALL_EXTRAS = f"[{','.join(PROJECT['project']['optional-dependencies'])}]"


def install(session: nox.Session, *requirements: str, package: str = ".") -> None:
    """Install the package as users get it, from this tree as it is now."""
    # setuptools would take modules from there that have been deleted since,
    # and uv what it built before.
    shutil.rmtree("build", ignore_errors=True)
    anew = ["--reinstall-package", "pychrony"] if session.venv_backend == "uv" else []
    # Not silent: on a slow network this takes minutes.
    session.install(*anew, package, *requirements, silent=False)


def run(session: nox.Session, *command: str) -> None:
    """Run with the real parts; on Ctrl-C there may be daemons to stop."""
    session.run(
        *command, env=parts(session), interrupt_timeout=10, terminate_timeout=10
    )


@nox.session
def demo(session: nox.Session) -> None:
    """Check the client of a little NTP network; with -- --keep let it run."""
    install(session, package=".[watch]" if session.posargs else ".")
    run(session, "python", "tests/tools/demo.py", *session.posargs)


@nox.session
@with_every_python
def tests(session: nox.Session) -> None:
    """Test with every CPython of this machine; arguments go to pytest."""
    tell_missing()
    install(session, *group("tests"), package=f".{ALL_EXTRAS}")
    # Most of a test's time is spent waiting for daemons.
    run(session, "pytest", "--numprocesses=auto", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Prove that the tests reach every line and branch of the package."""
    install(session, *group("tests"), "coverage>=7.10", package=f".{ALL_EXTRAS}")
    session.env["COVERAGE_FILE"] = f"{session.create_tmp()}/coverage"
    session.run("coverage", "erase")
    # What is left out calls millions of times what others call, or none of it.
    ignored = ("tests/core/test_bounded_simulated.py", "tests/release")
    run(
        session,
        *("coverage", "run", "-m", "pytest", "--numprocesses=auto"),
        *("-m", "not interrupts", *(f"--ignore={path}" for path in ignored)),
        *session.posargs,
    )
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session
def bench(session: nox.Session) -> None:
    """Compare the speed with that of others; arguments pick parts, see --help."""
    install(session, *group("bench"))
    # With an interpreter of its own, as it has the same name.
    environment = Path(session.create_tmp(), "2.0.3").resolve()
    session.run("python", "-m", "venv", str(environment))
    old = f"{environment}/bin/python"
    # If there is no wheel for this Python, its column says so.
    session.run(
        *(old, "-m", "pip", "install", "--quiet"),
        *("--only-binary", "pychrony", "pychrony==2.0.3"),
        success_codes=(0, 1),
    )
    session.env["PYTHONPATH"] = str(Path("tests", "tools").resolve())
    run(session, "python", "tests/bench/bench.py", f"--old={old}", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style, that imports go one way, and the workflows."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")
    session.run("zizmor", "--offline", "--persona=auditor", ".github")
    for schema, paths in (
        ("github-workflows", sorted(Path(".github/workflows").glob("*.yml"))),
        ("github-actions", sorted(Path(".github/actions").glob("*/action.yml"))),
        ("dependabot", [Path(".github/dependabot.yml")]),
    ):
        vendored = f"--builtin-schema=vendor.{schema}"
        session.run("check-jsonschema", vendored, *map(str, paths))


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check the types."""
    install(session, *group("typecheck"), package=f".{ALL_EXTRAS}")
    session.run("mypy")
    session.run("pyright")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages into docs/_build/html and run their examples."""
    install(session, *group("docs"), package=f".{ALL_EXTRAS}")
    strictly = ("-W", "--keep-going", "-n")
    for builder in ("html", "doctest"):
        command = ("sphinx-build", *strictly, "-b", builder)
        run(session, *command, "docs", f"docs/_build/{builder}")


@nox.session
def generate(session: nox.Session) -> None:
    """Write anew what is generated: the binding, tables, schema, picture, api.txt."""
    install(session, "cffi", "setuptools", package=f".{ALL_EXTRAS}")
    session.run("python", "pychrony/_cdef.py", "pychrony/_libchrony.py")
    session.env["PYTHONPATH"] = str(Path("tests", "prometheus").resolve())
    run(session, "python", "tests/tools/generated.py")


def locked(session: nox.Session, *names: str) -> None:
    """Install exactly what the locks of .github/locks/ list."""
    for name in names:
        session.install("--require-hashes", "-r", f".github/locks/{name}.txt")


def step(session: nox.Session, *command: str, **variables: str) -> None:
    """Run a step of a release: see .github/release/."""
    env = {"PYTHONPATH": ".github", **variables}
    session.run("python", "-u", "-m", "release", *command, env=env)


def oldest() -> str:
    return next(iter(PYTHONS.values()), sys.executable)


def newest() -> str:
    return [sys.executable, *PYTHONS.values()][-1]


@nox.session
def lock(session: nox.Session) -> None:
    """Write .github/locks/*.txt anew, from the dependency groups of that name."""
    session.install("uv")
    for path in sorted(Path(".github/locks").glob("*.txt")):
        session.run(
            *("uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"),
            *("--upgrade", "--no-annotate", "--no-header", "--python-version=3.10"),
            # The pip of CPython 3.10 to 3.12.1 wants them written.
            "--no-strip-extras",
            *(f"--group={path.stem}", f"--output-file={path}"),
        )


@nox.session
def build(session: nox.Session) -> None:
    """Build the distributions into dist/, at a version tag all files of its release."""
    locked(session, "check")
    step(session, "build", oldest(), *VERSIONS)


@nox.session
def check(session: nox.Session) -> None:
    """Check dist/ against git, another build, and what the indexes have and want."""
    locked(session, "check")
    step(session, "check", newest())


@nox.session(reuse_venv=False)
@with_every_python
def wheel_tests(session: nox.Session) -> None:
    """Test the wheel in dist/ with the tests of the sdist; arguments go to pytest."""
    found = sorted(Path("dist").resolve().glob("pychrony-*"))
    if [path.suffix for path in found] != [".whl", ".gz"]:
        session.error("dist/ has not one wheel and one sdist: run nox -s build first")
    wheel, sdist = found
    place = Path(session.create_tmp()).resolve() / "sdist"
    shutil.rmtree(place, ignore_errors=True)
    shutil.unpack_archive(sdist, place)
    (tree,) = place.iterdir()
    # What is imported must be the wheel, and no file of the tree.
    (tree / "pychrony").rename(tree / "not-installed")
    install(session, *group("tests"), package=f"{wheel}{ALL_EXTRAS}")
    session.chdir(tree)
    run(session, "pytest", *session.posargs)


@nox.session
def verify(session: nox.Session) -> None:
    """Compare what an index serves with dist/, and install it: -- testpypi."""
    locked(session, "check")
    step(session, "verify", *session.posargs, **parts(session))


@nox.session
def release(session: nox.Session) -> None:
    """Rehearse a release on this machine; with a version, prepare a real one."""
    locked(session, "check")
    if session.posargs:
        step(session, "prepare", *session.posargs)
        return
    session.install(*group("rehearsal"))
    step(session, "rehearse", **parts(session))
