"""Build the commit that is checked out, twice, into the same bytes."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import ReleaseError, files, run_quietly, say
from .repository import git

LOCK = Path(__file__).with_name("build.txt")


def build_twice(repository: Path, target: Path, pythons: Sequence[str]) -> None:
    """Into the target, if both interpreters in different places make the same."""
    with tempfile.TemporaryDirectory() as temporary:
        # Their lengths differ, too: a path that gets into a file would show.
        places = [Path(temporary, "one"), Path(temporary, "another-place", "two")]

        def make(place: Path, python: str) -> dict[str, str]:
            place.mkdir(parents=True)
            build(repository, place / "dist", environment(place / "venv", python))
            made = sorted((place / "dist").iterdir())
            return {path.name: files.sha256(path) for path in made}

        with ThreadPoolExecutor() as pool:
            first, second = pool.map(make, places, pythons)
        if first != second:
            differing = {name for name, _ in first.items() ^ second.items()}
            raise ReleaseError(
                f"two builds of {min(differing)} differ, of {pythons[0]} and "
                f"{pythons[1]}: find what depends on the place, time or interpreter"
            )
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(places[0] / "dist", target)
    files.write_manifest(target)
    for name, digest in first.items():
        say(f"{digest}  {name}")


def environment(directory: Path, python: str) -> Path:
    """An interpreter that has exactly the build requirements of the lock."""
    subprocess.run([python, "-m", "venv", str(directory)], check=True)
    interpreter = directory / "bin" / "python"
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run(
        [str(interpreter), *install, "--require-hashes", "-r", str(LOCK)], check=True
    )
    return interpreter


def build(repository: Path, target: Path, python: Path) -> None:
    """Build the sdist from a clean clone, and the wheel from the sdist alone."""
    if git(repository, "rev-parse", "--is-shallow-repository") == "true":
        raise ReleaseError(
            "this clone is shallow, so its version would be wrong: "
            "get the rest with git fetch --unshallow --tags"
        )
    commit = git(repository, "rev-parse", "HEAD")
    epoch = int(git(repository, "log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory() as temporary:
        clone, made = Path(temporary, "clone"), Path(temporary, "made")
        # Neither the user's settings nor hooks decide about the bytes.
        plain = ("git", "-c", "core.autocrlf=false", "-c", "core.hooksPath=/dev/null")
        _run(*plain, "clone", "-q", "--no-checkout", str(repository), str(clone))
        _run(*plain, "-C", str(clone), "checkout", "-q", "--detach", commit)
        target.mkdir(parents=True)
        sdist = _build(python, "sdist", clone, made, epoch)
        normalise(sdist, target / sdist.name, epoch)
        unpacked = Path(temporary, "sdist")
        unpacked.mkdir()
        _run("tar", "-xzf", str(target / sdist.name), "-C", str(unpacked))
        (tree,) = unpacked.iterdir()
        wheel = _build(python, "wheel", tree, made, epoch)
        shutil.copyfile(wheel, target / wheel.name)


def _build(python: Path, kind: str, source: Path, made: Path, epoch: int) -> Path:
    arguments = ("--no-isolation", f"--{kind}", "--outdir", str(made), str(source))
    _run(str(python), "-I", "-m", "build", *arguments, epoch=epoch)
    (path,) = made.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return path


def _run(*command: str, epoch: int = 0) -> None:
    # Nothing else of this process's environment can have a say.
    env = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    env |= {"LC_ALL": "C.UTF-8", "TZ": "UTC", "SOURCE_DATE_EPOCH": str(epoch)}
    result = run_quietly(*command, env=env, umask=0o022)
    if result.returncode:
        say(result.stdout)
        raise ReleaseError(f"{Path(command[0]).name} failed: see its output above")


def normalise(source: Path, target: Path, epoch: int) -> None:
    """Write the sdist anew, with nothing in it but names, contents and x bits."""
    with (
        tarfile.open(source) as archive,
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as anew,
    ):
        for member in sorted(archive, key=lambda member: member.name):
            if not member.isfile():
                continue
            plain = tarfile.TarInfo(member.name)
            plain.size, plain.mtime = member.size, epoch
            plain.mode = 0o755 if member.mode & 0o100 else 0o644
            anew.addfile(plain, archive.extractfile(member))
