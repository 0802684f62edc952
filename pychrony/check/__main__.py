"""``python -m pychrony.check``."""

import sys

from . import main

sys.exit(main())
