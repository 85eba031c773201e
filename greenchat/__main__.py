"""``python -m greenchat``."""

import sys

from greenchat.cli import main

sys.exit(main())
