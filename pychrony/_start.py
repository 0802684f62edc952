"""Starts a command in a process of its own."""

from __future__ import annotations

import gc
import sys
from importlib import import_module

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from typing import NoReturn


def start(module: str) -> NoReturn:
    """Import the module of a command, run its ``main``, and exit with its status.

    What is imported stays until the process ends. To look for garbage in it, again
    and again during the imports and at exit, took a tenth of the CPU time of a check.
    """
    gc.disable()
    main = import_module(module).main
    gc.freeze()
    gc.enable()
    sys.exit(main())
