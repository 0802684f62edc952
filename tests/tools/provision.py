"""Find or fetch the real libchrony, chronyd and others, without an installation."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENT = "environment"
SONAME = "libchrony.so.0"
OS_RELEASE = Path("/etc/os-release")

# An installed AppArmor profile lets chronyd at this very path read only the
# system's own configuration; it does not apply to a copy of the program.
APPARMOR_PROFILE = Path("/etc/apparmor.d/usr.sbin.chronyd")

INSTALL = {
    "collectd-core": {
        "alpine": "apk add collectd",
        "arch": "pacman -S collectd",
        "fedora": "dnf install collectd",
        "suse": "zypper install collectd",
    },
    "chrony": {
        "alpine": "apk add chrony",
        "arch": "pacman -S chrony",
        "fedora": "dnf install chrony libchrony",
        "suse": "zypper install chrony",
    },
    "prometheus": {
        "alpine": "apk add prometheus",
        "arch": "pacman -S prometheus",
        "fedora": "dnf install golang-github-prometheus",
        "suse": "zypper install golang-github-prometheus-prometheus",
    },
}

# The first need libraries of their own; of what the others depend on, little is needed.
MONITORING = (
    ("install", "icinga2-bin", "nagios-nrpe-server", "zabbix-agent"),
    (
        *("download", "nagios4-core", "nagios-nrpe-plugin", "prometheus-node-exporter"),
        *("munin-node", "munin-common", "libnet-server-perl"),
    ),
)

# What makes "install" only fetch, also what is installed.
ONLY_FETCH = ("--yes", "--no-install-recommends", "--download-only", "--reinstall")

# Where its package has them.
CHRONY = ("usr/sbin/chronyd", "usr/bin/chronyc")
PROMETHEUS = ("prometheus", "promtool")

# chronyd, chronyc, their library path, and where they are from.
Found = tuple[str, str, str, str]


class ProvisionError(Exception):
    """A part is neither here nor to be had; the text says what to do."""


@dataclass(frozen=True)
class Parts:
    """What the tests need. `library_path` is for chronyd and chronyc alone."""

    libchrony: str
    chronyd: str
    chronyc: str
    library_path: str


def parts() -> Parts:
    """Take what the environment names, else the system's parts, else fetch them."""
    libchrony, source = _libchrony()
    _say("libchrony", libchrony, source)
    found = _named_chrony() or _system_chrony() or _fetched_chrony()
    chronyd, chronyc, library_path, source = found
    _say("chronyd", chronyd, source)
    _say("chronyc", chronyc, source)
    return Parts(libchrony, chronyd, chronyc, library_path)


def provide() -> Parts:
    """Take the same, for this process and those that it starts."""
    found = parts()
    os.environ.update(environment(found))
    return found


@functools.cache
def prometheus() -> tuple[str, str]:
    """The programs prometheus and promtool, fetched when they are first needed."""
    found = tuple(filter(None, map(shutil.which, PROMETHEUS)))
    if len(found) < len(PROMETHEUS):
        _need_apt("prometheus", "prometheus")
        name = _cache_name("prometheus", OS_RELEASE.read_text())
        root = _cached(name, _fetch_prometheus, _prometheus_runs)
        found = tuple(f"{root}/{program}" for program in PROMETHEUS)
    server, tool = found
    return server, tool


@functools.cache
def collectd() -> Path:
    """Where collectd and its plugins are unpacked, fetched when it is first needed."""
    _need_apt("collectd", "collectd-core")

    def fetch(root: Path) -> None:
        _unpack("collectd", root, ("download", "collectd-core"))

    name = _cache_name("collectd", OS_RELEASE.read_text())
    return _cached(name, fetch, lambda root: _runs([f"{root}/usr/sbin/collectd", "-h"]))


@functools.cache
def monitoring() -> Path:
    """Where monitoring systems of Debian are unpacked, fetched when first needed."""
    name = _cache_name("monitoring", OS_RELEASE.read_text())
    return _cached(name, _fetch_monitoring, _icinga_runs)


def icinga(root: Path) -> str:
    """The program icinga2 itself; the one in sbin is a script that has fixed paths."""
    return str(next(root.glob("usr/lib/*/icinga2/sbin/icinga2")))


def environment(parts: Parts) -> dict[str, str]:
    """The variables that hand the parts on to child processes."""
    variables = {
        "PYCHRONY_TEST_CHRONYD": parts.chronyd,
        "PYCHRONY_TEST_CHRONYC": parts.chronyc,
        "PYCHRONY_TEST_LIBRARY_PATH": parts.library_path,
    }
    if parts.libchrony != SONAME:
        variables["PYCHRONY_LIBCHRONY"] = parts.libchrony
    return variables


def _libchrony() -> tuple[str, str]:
    named = os.environ.get("PYCHRONY_LIBCHRONY")
    if named:
        return named, ENVIRONMENT
    if _loads(SONAME):
        return SONAME, "system"
    wheel = _wheel()

    def fetch(directory: Path) -> None:
        data = wheel.download(lambda text: print(f"libchrony: {text}", file=sys.stderr))
        (directory / SONAME).write_bytes(data)

    try:
        name = _cache_name("libchrony", wheel.DIGESTS[wheel.tag()])
        directory = _cached(name, fetch, lambda path: _loads(str(path / SONAME)))
    except wheel.WheelError as error:
        raise ProvisionError(
            f"libchrony: {error}. Or set PYCHRONY_LIBCHRONY to a {SONAME}"
        ) from error
    return str(directory / SONAME), f"out of {wheel.RELEASE}"


def _wheel() -> Any:
    """pychrony/_wheel.py, without pychrony: that opens libchrony, and needs cffi."""
    file = Path(__file__).parents[2] / "pychrony" / "_wheel.py"
    if not file.is_file():  # the package is installed, and not in this tree
        package = importlib.util.find_spec("pychrony")
        assert package and package.origin
        file = Path(package.origin).with_name("_wheel.py")
    spec = importlib.util.spec_from_file_location("pychrony_wheel", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _named_chrony() -> Found | None:
    chronyd = os.environ.get("PYCHRONY_TEST_CHRONYD")
    chronyc = os.environ.get("PYCHRONY_TEST_CHRONYC")
    if chronyd and chronyc:
        library_path = os.environ.get("PYCHRONY_TEST_LIBRARY_PATH", "")
        return chronyd, chronyc, library_path, ENVIRONMENT
    if chronyd or chronyc:
        raise ProvisionError(
            "PYCHRONY_TEST_CHRONYD and PYCHRONY_TEST_CHRONYC: set both or neither"
        )
    return None


def _system_chrony() -> Found | None:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    chronyd = shutil.which("chronyd", path=path)
    chronyc = shutil.which("chronyc", path=path)
    if not (chronyd and chronyc):
        return None
    if APPARMOR_PROFILE.exists():
        chronyd = _unconfined(Path(chronyd))
    return chronyd, chronyc, "", "system"


def _fetched_chrony() -> Found:
    _need_apt("chronyd", "chrony")
    root = _cached(
        _cache_name("chrony", OS_RELEASE.read_text()), _fetch_chrony, _chrony_runs
    )
    chronyd, chronyc = (f"{root}/{program}" for program in CHRONY)
    source = "packages of this distribution, unpacked"
    return chronyd, chronyc, library_path(root), source


def _need_apt(part: str, package: str) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        system = platform.freedesktop_os_release()
        family = [system.get("ID", ""), *system.get("ID_LIKE", "").split()]
        command = next(
            (INSTALL[package][name] for name in family if name in INSTALL[package]),
            f"the package manager, package {package}",
        )
        raise ProvisionError(f"{part}: not on this system. Install it with: {command}")


def _chrony_runs(root: Path) -> bool:
    """Whether the libraries that were missing when it was fetched still suffice."""
    return all(
        _runs([f"{root}/{program}", "-v"], LD_LIBRARY_PATH=library_path(root))
        for program in CHRONY
    )


def _runs(command: Sequence[str], **variables: str) -> bool:
    try:
        subprocess.run(command, env=variables, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def library_path(root: Path) -> str:
    """Where the libraries of an unpacked package are, for LD_LIBRARY_PATH."""
    directories = (*root.glob("usr/lib/*-linux-*"), *root.glob("lib/*-linux-*"))
    return os.pathsep.join(map(str, directories))


def _fetch_chrony(root: Path) -> None:
    _unpack("chronyd", root, ("install", "chrony"))


def _fetch_monitoring(root: Path) -> None:
    for command in MONITORING:
        _unpack("monitoring", root, command)


def _icinga_runs(root: Path) -> bool:
    return _runs([icinga(root), "--version"], LD_LIBRARY_PATH=library_path(root))


def _unpack(part: str, root: Path, command: Sequence[str]) -> None:
    verb, *packages = command
    options = ONLY_FETCH if verb == "install" else ()
    for package in _packages(part, (verb, *options, *packages)):
        _run(part, "dpkg-deb", "--extract", str(package), str(root))


def _fetch_prometheus(root: Path) -> None:
    # Both were in one package once. They need none of the many others that it
    # depends on, and nothing else that is in it.
    apart, together = ("download", *PROMETHEUS), ("download", "prometheus")
    for package in _packages("prometheus", apart, together):
        with tempfile.TemporaryDirectory(dir=root) as directory:
            _run("prometheus", "dpkg-deb", "--extract", str(package), directory)
            for program in Path(directory, "usr/bin").iterdir():
                program.rename(root / program.name)


def _prometheus_runs(root: Path) -> bool:
    return all(_runs([f"{root}/{name}", "--version"]) for name in PROMETHEUS)


def _packages(part: str, *commands: Sequence[str]) -> Iterator[Path]:
    """Yield the packages that the first command of apt-get that works fetches."""
    print(
        f"{part}: fetching this distribution's packages with apt-get", file=sys.stderr
    )
    with tempfile.TemporaryDirectory() as state:
        lists, cache, archives = (
            Path(state, name) for name in ("lists", "cache", "archives")
        )
        for directory in (lists, cache, archives):
            (directory / "partial").mkdir(parents=True)
        apt = (
            *("env", "--chdir", str(archives), f"TMPDIR={state}"),
            *("apt-get", "--quiet"),
            *("--option", f"Dir::State::Lists={lists}"),
            *("--option", f"Dir::Cache={cache}"),
            *("--option", f"Dir::Cache::Archives={archives}"),
            # Nothing is installed, so an ordinary user needs no lock, and the
            # user that root's apt would become need not see these directories.
            *("--option", "Debug::NoLocking=true"),
            *("--option", "APT::Sandbox::User=root"),
            *("--option", "Acquire::Languages=none"),
        )
        # A repository that has nothing to do with it may fail; whether this one
        # did not matters in the second step.
        said = _try(*apt, "update").stdout
        for command in commands:
            result = _try(*apt, *command)
            if result.returncode == 0:
                break
            said += result.stdout
        else:
            raise ProvisionError(f"{part}: could not be fetched:\n{said.rstrip()}")
        yield from sorted(archives.glob("*.deb"))


def _unconfined(chronyd: Path) -> str:
    def copy(directory: Path) -> None:
        shutil.copy(chronyd, directory / "chronyd")

    name = f"chronyd-{_digest(chronyd.read_bytes())}"
    return str(_cached(name, copy, Path.is_dir) / "chronyd")


def _cached(
    name: str, fill: Callable[[Path], None], usable: Callable[[Path], bool]
) -> Path:
    """The directory NAME of the cache; whoever dies or comes second leaves no half."""
    cache = _cache()
    target = cache / name
    if target.is_dir() and usable(target):
        return target
    with tempfile.TemporaryDirectory(prefix=".new-", dir=cache) as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        new.mkdir()
        fill(new)
        if not usable(new):
            raise ProvisionError(f"{name}: what was fetched does not run here")
        if target.is_dir() and not usable(target):
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    return target


def _cache() -> Path:
    for base in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        cache = Path(base, "pychrony")
        if not cache.is_absolute():
            continue
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(cache, os.W_OK | os.X_OK):
            return cache
    cache = Path(tempfile.gettempdir(), f"pychrony-{os.getuid()}")
    cache.mkdir(mode=0o700, exist_ok=True)
    status = cache.lstat()
    # Programs are run from here: it must not be somebody else's directory.
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or not cache.is_dir():
        raise ProvisionError(f"{cache}: not a directory that only you can write to")
    return cache


def _cache_name(part: str, contents: str) -> str:
    """A name in the cache that is another one for other contents."""
    # Processor and C library: a home directory can be shared between several.
    system = sysconfig.get_config_var("HOST_GNU_TYPE")
    key = f"{contents}\0{system}"
    return f"{part}-{_digest(key.encode())}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _try(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _run(part: str, *command: str) -> None:
    result = _try(*command)
    if result.returncode:
        raise ProvisionError(f"{part}: could not be fetched:\n{result.stdout.rstrip()}")


def _say(part: str, what: str, source: str) -> None:
    # Who named it knows; under nox, that was a run of this already.
    if source != ENVIRONMENT:
        print(f"{part}: {what} ({source})", file=sys.stderr)


if __name__ == "__main__":
    try:
        for variable, value in environment(parts()).items():
            print(f"{variable}={value}")
    except ProvisionError as error:
        sys.exit(str(error))
