"""``python -m pychrony.prometheus``."""

import sys

from . import main

sys.exit(main())
