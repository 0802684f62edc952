"""``python -m pychrony.prometheus``."""

from pychrony._start import start

start("pychrony.prometheus._cli")
