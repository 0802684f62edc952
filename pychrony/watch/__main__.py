"""``python -m pychrony.watch``."""

import sys

from . import main

sys.exit(main())
