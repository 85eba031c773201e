"""Run a program with a wall clock that may be wrong: ``python skewed.py FILE PROGRAM ...``; FILE has by how much."""

import runpy
import sys
import time
from pathlib import Path

path, true_time = Path(sys.argv[1]), time.time
time.time = lambda: true_time() + float(path.read_text() or 0)
sys.argv = sys.argv[2:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
