"""Feed Prometheus: a collector for prometheus_client, and an exporter.

In a program of your own::

    from prometheus_client import REGISTRY
    from pychrony.prometheus import Collector

    REGISTRY.register(Collector())

``python -m pychrony.prometheus`` is the exporter: ``/metrics`` has the chronyd
of this machine, ``/probe?target=ADDRESS`` any other that ``--allow`` names.
Both need ``pip install pychrony[prometheus]``; ``docs/prometheus.rst`` has the
rest.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from ._collector import Collector

__all__ = ["Collector", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the exporter until SIGINT or SIGTERM, and return its exit status."""
    try:
        command = _room("_command")
    except ImportError as error:
        print(error, file=sys.stderr)
        return 1
    status: int = command.run(argv)
    return status


def __getattr__(name: str) -> Any:
    if name == "Collector":
        return _room("_collector").Collector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _room(name: str) -> ModuleType:
    try:
        return import_module(f"{__name__}.{name}")
    except ImportError as error:
        raise ImportError(
            "pychrony.prometheus needs prometheus_client. "
            f"Install it with: pip install 'pychrony[prometheus]' ({error})"
        ) from error
