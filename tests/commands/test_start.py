"""How the commands start."""

from __future__ import annotations

from importlib.metadata import entry_points

from helpers import python

COMMAND = """
import gc, sys, types
command = types.ModuleType("command")
command.main = lambda: print(gc.isenabled(), gc.get_freeze_count() > 0) or 3
sys.modules["command"] = command
from pychrony._start import start
start("command")
"""


def test_garbage_is_collected_but_not_looked_for_in_what_is_imported() -> None:
    assert python(COMMAND, status=3).stdout == "True True\n"


def test_installed_command_is_the_check() -> None:
    (entry,) = entry_points(group="console_scripts", name="check_chrony")
    module, _, function = entry.value.partition(":")
    code = f"import sys; from {module} import {function}; sys.exit({function}())"
    assert python(code, "--version").stdout.startswith("pychrony ")
