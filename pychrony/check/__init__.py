"""Check a clock: for a person, from cron, or as a Nagios plugin.

``python -m pychrony.check [ADDRESS ...]``, or the command ``check_chrony``, prints
the state of the clock, why, and what to do, and exits with 0 OK, 1 WARNING,
2 CRITICAL or 3 UNKNOWN. ``docs/check.rst`` has the rest.
"""

from . import _cli
from ._cli import main
from ._judge import CRITICAL, OK, UNKNOWN, WARNING

_parser = _cli.parser  # for the documentation

__all__ = ["CRITICAL", "OK", "UNKNOWN", "WARNING", "main"]
