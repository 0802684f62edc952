"""Check a clock: for a person, from cron, or as a Nagios-family plugin.

``python -m pychrony.check [ADDRESS]``, or the command ``check_chrony``, says in
one line what state the clock is in and why, and what to do, and exits with 0 OK,
1 WARNING, 2 CRITICAL or 3 UNKNOWN. On a terminal each item follows that was
checked; a monitoring system gets performance data.

With several addresses, or ``--hosts FILE``, the line counts the clocks in each
state, and a table shows the worst of them; the exit status is that of the worst.
"""

from . import _cli
from ._cli import main
from ._judge import CRITICAL, OK, UNKNOWN, WARNING

_parser = _cli.parser  # for the documentation

__all__ = ["CRITICAL", "OK", "UNKNOWN", "WARNING", "main"]
