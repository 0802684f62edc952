"""Feed Prometheus: a collector for prometheus_client, and an exporter.

In a program of your own::

    from prometheus_client import REGISTRY
    from pychrony.prometheus import Collector

    REGISTRY.register(Collector())

``python -m pychrony.prometheus`` is the exporter: ``/metrics`` reads the chronyd of
this machine, ``/probe?target=ADDRESS`` another one that ``--allow`` names. The
collector needs ``pip install pychrony[prometheus]``. ``docs/prometheus.rst`` has the
rest.
"""

from __future__ import annotations

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ._collector import Collector

__all__ = ["Collector", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the exporter until SIGINT or SIGTERM, and return its exit status."""
    from . import _cli

    return _cli.main(argv)


def __getattr__(name: str) -> Any:
    if name != "Collector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from ._collector import Collector
    except ImportError as error:
        raise ImportError(
            "pychrony.prometheus.Collector needs prometheus_client. "
            f"Install it with: pip install 'pychrony[prometheus]' ({error})"
        ) from error
    return Collector
