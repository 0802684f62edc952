"""Check a clock: for a person, from cron, or as a Nagios plugin.

``python -m pychrony.check [ADDRESS ...]``, or the command ``check_chrony``, prints
the state of the clock, why, and what to do, and exits with 0 OK, 1 WARNING,
2 CRITICAL or 3 UNKNOWN. ``docs/check.rst`` has the rest.
"""

from __future__ import annotations

from ._states import CRITICAL, OK, UNKNOWN, WARNING

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CRITICAL", "OK", "UNKNOWN", "WARNING", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check and return its exit status; never raises an error."""
    from . import _cli

    return _cli.main(argv)
