"""Extracts libchrony from the published wheels of pychrony 2.0.3, which contain it.

This module uses only the standard library: the tests load it before they can import
pychrony, and nox loads it without cffi.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RELEASE = "pychrony==2.0.3"
ORIGIN = (
    "libchrony is by Miroslav Lichvar, under the LGPL 2.1 or later. Its source: "
    "https://gitlab.com/chrony/libchrony"
)
BUILD = (
    "build it: git clone https://gitlab.com/chrony/libchrony && cd libchrony && make "
    "&& sudo make install && sudo ldconfig"
)

# SHA-256 of the library. It is the same file in all wheels of a platform, so the
# wheel for one version of Python suffices. It needs only glibc 2.4, despite the tag.
WHEEL_PYTHON = "3.12"
DIGESTS = {
    "manylinux_2_28_x86_64": (
        "60150013ef15d80ccec870b73ba6cdd70a1fe1251967619cacf1a2dc6fb54822"
    ),
    "manylinux_2_28_aarch64": (
        "af6dca1733a94a2ba3fff3b2fe075e37625a41622e4b8a5b53809a9a0ceb5d6a"
    ),
    "musllinux_1_2_x86_64": (
        "10a2c86f8dfa4a1cf60a8e08840016d7fdcdba459805749c7262046a14eeaca8"
    ),
    "musllinux_1_2_aarch64": (
        "1545f22a4073847fa206c7439cfa9689ade6b12731db421292a356626c4ff88e"
    ),
}

# The largest library has 265,945 bytes.
_MOST_BYTES = 1 << 20

# Maximum time for a download [s], in case the network is silent.
_DOWNLOAD_LIMIT = 180.0

# What pip 22 to 26 print if the network fails; the cause is in quotes.
_NO_NETWORK = re.compile(
    r"connection broken by '(?:\w+\()?(?P<cause>.*?)'?\)?': /|"
    r"(?P<other>Tunnel connection failed[^'\")]*|"
    r"(?:Temporary failure in n|N)ame (?:resolution|or service not known))"
)


class WheelError(Exception):
    """libchrony cannot be obtained this way. The message is one line of advice."""


def tag() -> str:
    """Return the platform of the wheel whose library this Python can load.

    Raises:
        WheelError: there is none.
    """
    found = _tag()
    if found not in DIGESTS:
        raise WheelError(
            f"there is no published libchrony for this platform ({found}): {BUILD}"
        )
    return found


def _tag() -> str:
    machine = os.uname().machine
    if sys.maxsize < 2**32:  # it may run under a 64-bit kernel
        machine += "_32bit"
    try:
        glibc = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        glibc = None
    return f"{'manylinux_2_28' if glibc else 'musllinux_1_2'}_{machine}"


def command(action: str = "install") -> str:
    """Return the shell command that runs this action for this interpreter."""
    words = [shlex.quote(sys.executable or "python3"), "-m", "pychrony.library", action]
    archive = os.path.dirname(os.path.dirname(__file__))
    if os.path.isfile(archive):  # a zipapp, which python -m does not find by itself
        words.insert(0, f"PYTHONPATH={shlex.quote(archive)}")
    library = os.path.join(sys.prefix, "lib")
    if os.geteuid() and not os.access(library, os.W_OK):
        words.insert(0, "sudo")
    return " ".join(words)


def own_environment() -> str:
    """Return the command that makes an environment, if this is the system's Python."""
    marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    if sys.prefix != sys.base_prefix or not (
        os.path.exists(marker) or sys.prefix == "/usr"
    ):
        return ""
    return (
        "python3 -m venv DIR && DIR/bin/pip install pychrony && "
        "DIR/bin/python -m pychrony.library install"
    )


def read(path: str) -> bytes:
    """Return the library out of a wheel, a directory of wheels, or its own file.

    Raises:
        WheelError: it is not there, or not the one for this platform.
    """
    wanted = tag()
    try:
        if os.path.isdir(path):
            wheels = sorted(map(str, Path(path).glob("pychrony-2.0.3-*.whl")))
            libraries = {wheel: _member(wheel) for wheel in wheels}
        elif zipfile.is_zipfile(path):
            libraries = {path: _member(path)}
        else:
            with open(path, "rb") as file:
                libraries = {path: file.read(_MOST_BYTES)}
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as reason:
        text = getattr(reason, "strerror", None) or reason
        raise WheelError(f"{path}: {text}") from reason
    digests = {hashlib.sha256(data).hexdigest(): data for data in libraries.values()}
    if DIGESTS[wanted] in digests:
        return digests[DIGESTS[wanted]]
    for other, digest in DIGESTS.items():
        if digest in digests:
            raise WheelError(f"{path}: it is for {other}, this Python needs {wanted}")
    if not libraries:
        raise WheelError(f"{path}: no wheel of {RELEASE} is in it")
    raise WheelError(
        f"{path}: the libchrony in it is not that of {RELEASE} (SHA-256 "
        f"{', '.join(digests)}): get the wheel again, with: {_by_hand(wanted)}"
    )


def _member(wheel: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if re.match(r"pychrony\.libs/libchrony-.*\.so", member.filename):
                with archive.open(member) as file:
                    return file.read(_MOST_BYTES)
    return b""


def download(say: Callable[[str], None]) -> bytes:
    """Return the library out of the wheel that pip downloads.

    Raises:
        WheelError: pip cannot, or it is not the right one.
    """
    wanted = tag()
    with tempfile.TemporaryDirectory() as directory:
        pip = _pip(directory, say)
        say(f"downloading {RELEASE} for {wanted} with pip")
        words = [*pip, *_arguments(wanted), "--dest", directory]
        status, output = _run(words, directory)
        if status:
            raise WheelError(
                f"pip cannot download {RELEASE}: {_cause(output)}. {_elsewhere(wanted)}"
            )
        return read(directory)


def _arguments(platform: str) -> list[str]:
    return [
        *("download", "--no-input", "--disable-pip-version-check", "--no-deps"),
        *("--retries", "1", "--only-binary", ":all:", "--platform", platform),
        *("--python-version", WHEEL_PYTHON, RELEASE),
    ]


def _by_hand(platform: str) -> str:
    return (
        "pip download --no-deps --only-binary :all: "
        f"--platform {platform} --python-version {WHEEL_PYTHON} {RELEASE}"
    )


def _elsewhere(platform: str) -> str:
    return (
        f"Fetch the wheel where that works, with: {_by_hand(platform)} - and install "
        f"it with: {command()} WHEEL"
    )


def _pip(directory: str, say: Callable[[str], None]) -> list[str]:
    """Return the command of this environment's pip, or of one made in DIRECTORY."""
    isolated = ["-I"] if sys.flags.isolated else []
    if importlib.util.find_spec("pip"):
        return [sys.executable, *isolated, "-m", "pip"]
    say("this environment has no pip: making a temporary one")
    place = os.path.join(directory, "pip")
    status, output = _run([sys.executable, *isolated, "-m", "venv", place], directory)
    if status:
        lines = output.split("\n") or [""]
        raise WheelError(
            f"{sys.executable} has no pip, and cannot make one (on Debian and Ubuntu: "
            f"apt install python3-venv): {lines[0]}. {_elsewhere(tag())}"
        )
    return [os.path.join(place, "bin", "python"), "-m", "pip"]


def _run(words: list[str], directory: str) -> tuple[int, str]:
    try:
        result = subprocess.run(  # noqa: S603 - an interpreter and its own module
            words,
            # A pip that is killed leaves its temporary files: here they are removed.
            env=os.environ
            | {"LC_ALL": "C.UTF-8", "NO_COLOR": "1", "TMPDIR": directory},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_DOWNLOAD_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"ERROR: no answer in {_DOWNLOAD_LIMIT:.0f} s"
    return result.returncode, result.stdout.strip()


def _cause(output: str) -> str:
    """Return the line of pip's output that says why it failed."""
    found = _NO_NETWORK.search(output)
    if found:
        cause = found["cause"] or found["other"]
        return f"no connection to its index ({cause.strip()})"
    errors = [line for line in output.splitlines() if line.startswith("ERROR: ")]
    return errors[-1].removeprefix("ERROR: ") if errors else output[-200:]


def store(data: bytes, target: str, check: Callable[[str], object]) -> None:
    """Replace the file ``target`` atomically, if ``check`` accepts the new file.

    Raises:
        OSError: it cannot be written.
    """
    directory = os.path.dirname(target)
    descriptor, temporary = tempfile.mkstemp(prefix=".libchrony-", dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        check(temporary)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with suppress(OSError):  # some file systems know no fsync of a directory
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
