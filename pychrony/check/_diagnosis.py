"""What a bug report needs: ``python -m pychrony.check --self``."""

from __future__ import annotations

import os
import platform
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import _cffi_backend

import pychrony
from pychrony import ChronyConnectionError, ChronyError, _address
from pychrony._chronyc import printable
from pychrony._cli import timeout_within
from pychrony._library import VARIABLE, load


def diagnose(addresses: Sequence[str], *, seconds: float, retries: int) -> str:
    """Return versions, the library, the user, and what each daemon replies."""
    rows = list(_process())
    for address in addresses or _address.LOCAL:
        rows += _daemon(address, seconds, retries)
    # The path of the home directory may contain a name.
    home = os.path.expanduser("~").rstrip("/")
    mine = rf"(?<![\w./-]){re.escape(home)}(?=/)" if home.startswith("/") else "(?!)"
    return "\n".join(
        printable(f"{name:{len(VARIABLE)}}  {re.sub(mine, '~', text)}".rstrip())
        for name, text in rows
    )


def _process() -> Iterator[tuple[str, str]]:
    yield "pychrony", f"{pychrony.__version__}, {Path(pychrony.__file__).parent}"
    yield "cffi", _cffi_backend.__version__
    yield "Python", f"{platform.python_implementation()} {platform.python_version()}"
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    libc = " ".join(platform.libc_ver()) or "C library unknown"
    yield (
        "system",
        f"{system}, Linux {platform.release()}, {platform.machine()}, {libc}",
    )
    named = os.environ.get(VARIABLE)
    yield VARIABLE, "not set" if named is None else repr(named)
    try:
        path, reports = pychrony.library_path(), pychrony.reports()
    except ChronyError as error:
        yield "libchrony", error.message
    else:
        yield "libchrony", f"{path}, all {len(dir(load()))} symbols found"
        yield "reports", ", ".join(reports)
    groups = ",".join(map(str, sorted(os.getgroups())))
    yield "user", f"uid {os.geteuid()}, gid {os.getegid()}, groups {groups}"


def _daemon(address: str, seconds: float, retries: int) -> Iterator[tuple[str, str]]:
    """Read every report, until one gets no reply."""
    yield "", ""
    yield "daemon", address
    target = address.partition("://")[2] or address
    if target.startswith("/"):
        for path in (os.path.dirname(target), target):
            yield "", f"{path}: {_access(path)}"
    try:
        timeout = timeout_within(seconds, retries, 1)
        with pychrony.ChronyConnection(
            address, timeout=timeout, retries=retries
        ) as connection:
            for name in pychrony.reports():
                try:
                    number = len(connection.get_report(name))
                    answer = f"{number} record{'s' * (number != 1)}"
                except ChronyConnectionError:
                    raise
                except ChronyError as error:
                    answer = str(error)
                yield name, answer
    except ChronyError as error:
        yield "", str(error)


def _access(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        return str(error.strerror)
    return f"{stat.filemode(status.st_mode)} uid {status.st_uid} gid {status.st_gid}"
