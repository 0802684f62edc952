"""``python -m pychrony.check``, and the command ``check_chrony``."""

from pychrony._start import start

TYPE_CHECKING = False  # spares an import of typing, which costs milliseconds
if TYPE_CHECKING:
    from typing import NoReturn


def run() -> "NoReturn":
    start("pychrony.check._cli")


if __name__ == "__main__":
    run()
