"""``python -m interlocking_backprop`` is the command ``ibp``."""

import sys

from interlocking_backprop.cli.main import main

sys.exit(main())
