"""``python -m greenchat``."""

import sys

from greenchat.launch import launch

sys.exit(launch())
