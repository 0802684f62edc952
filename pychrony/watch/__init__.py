"""Watch clocks: their offsets within their error bounds, and their sources, live.

``python -m pychrony.watch [ADDRESS...]`` is a live view in a terminal, and needs
``pip install 'pychrony[watch]'``. Elsewhere, or with ``--plain``, it prints one
line for each reading. It goes on when chronyd cannot be read, and shows why.
"""

from ._cli import main

__all__ = ["main"]
