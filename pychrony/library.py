"""Shows which libchrony is used, and installs one if the system has none.

``python -m pychrony.library``, ``python -m pychrony.library install`` and
``python -m pychrony.library uninstall``. The command installs the library from the
published wheels of pychrony 2.0.3 as ``sys.prefix/lib/libchrony.so.0``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from . import _library, _wheel  # pyright: ignore[reportPrivateUsage]
from ._cli import printing
from ._libchrony import ffi
from .exceptions import ChronyLibraryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m pychrony.library`` and return its exit status.

    Returns:
        0 if a usable libchrony was found or installed, or ``uninstall`` succeeded;
        otherwise 1, after printing the reason and advice.
    """
    options = _parser().parse_args(arguments)
    try:
        with printing():
            if options.action == "install":
                _install(options.wheel)
            elif options.action == "uninstall":
                _uninstall()
            else:
                _show()
            sys.stdout.flush()
            return 0
    except (_wheel.WheelError, ChronyLibraryError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or 'output'}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pychrony.library",
        description="Show which libchrony is used, and where it was found.",
    )
    actions = parser.add_subparsers(dest="action", title="actions", metavar="ACTION")
    text = f"the libchrony of {_wheel.RELEASE} for this Python"
    install = actions.add_parser(
        "install", help=f"install {text}", description=f"Install {text}."
    )
    install.add_argument(
        "wheel",
        nargs="?",
        metavar="WHEEL",
        help="the wheel, its directory, or the library extracted from it; by default "
        "pip downloads the wheel",
    )
    actions.add_parser(
        "uninstall",
        help="remove what install has installed",
        description="Remove what install has installed.",
    )
    return parser


def _show() -> None:
    path = _library.library_path()
    digest = _digest(path)
    print(f"libchrony: {path}")
    print(f"found:     {_found()}")
    print(f"SHA-256:   {digest}")
    tags = {known: tag for tag, known in _wheel.DIGESTS.items()}
    if digest in tags:
        print(f"verified:  by SHA-256: that of {_wheel.RELEASE} for {tags[digest]}")
    else:
        print("verified:  by its functions and error codes")
    print(f"reports:   {' '.join(_library.reports())}")


def _found() -> str:
    if os.environ.get(_library.VARIABLE):
        return f"{_library.VARIABLE} names it"
    if _library.name == _library.SONAME:
        return "by the system"
    return "in this environment"


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as reason:
        return f"unknown ({reason.strerror})"


def _install(wheel: str | None) -> None:
    if _library.is_usable():
        print(f"libchrony is there already: {_library.library_path()}")
        return
    if os.environ.get(_library.VARIABLE):
        _library.load()  # raises an error that says what to do
    if environment := _wheel.own_environment():
        raise _wheel.WheelError(
            f"{sys.executable} is the Python of the system, whose files belong to its "
            f"packages. Use a virtual environment: {environment}"
        )
    target = _library.in_prefix()
    _wheel.tag()
    _check_writable(os.path.dirname(target))
    data = _wheel.read(wheel) if wheel else _wheel.download(_say)
    try:
        _wheel.store(data, target, _library.open_library)
    except (OSError, ffi.error) as reason:
        raise _wheel.WheelError(f"{target}: not installed: {reason}") from reason
    print(f"installed {target}")
    print(_wheel.ORIGIN)


def _check_writable(directory: str) -> None:
    if os.access(directory, os.W_OK):
        return
    if not os.path.isdir(directory):
        text = "no such directory"
    elif os.statvfs(directory).f_flag & os.ST_RDONLY:
        text = (
            "it is on a read-only file system: install before it becomes read-only "
            "(for a container, when its image is built), or let "
            f"{_library.VARIABLE} name a libchrony elsewhere"
        )
    else:
        text = f"not permitted: {_wheel.command()}"
    raise _wheel.WheelError(f"{directory}: {text}")


def _uninstall() -> None:
    target = _library.in_prefix()
    if not os.path.lexists(target):
        print(f"nothing to remove: there is no {target}")
    elif _digest(target) in _wheel.DIGESTS.values():
        os.unlink(target)
        print(f"removed {target}")
    else:
        raise _wheel.WheelError(
            f"{target} is damaged or was not installed by this command. To remove it: "
            f"rm {target}"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _end(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)  # so that temporary files are removed


if __name__ == "__main__":
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _end)
    sys.exit(main())
