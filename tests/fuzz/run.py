"""Run every target on millions of cases: ``python run.py``, or some: ``python run.py --cases 1000 record text``.

Each runs in a process of its own, on what atheris makes of the files in ``corpus/TARGET``, led by what code they reach.
A crash, a hang, a traceback and a process that grows end the run; the case is kept where the last lines say.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
TOP: Final = HERE.parent.parent

CASES: Final = {
    "record": 400_000,
    "server_wire": 350_000,
    "client_wire": 250_000,
    "name": 250_000,
    "text": 300_000,
    "key": 100_000,
    "argument": 100_000,
    "menu": 100_000,
    "tls_handshake": 60_000,
    "tls_records": 20_000,
    "session": 40_000,
    "server": 10_000,
    "owner": 20_000,
    "requester": 20_000,
    "door": 10_000,
    "sealed_owner": 10_000,
    "sealed_requester": 10_000,
}
"""Two million in all; those that open sockets and files take longest."""

MAX_MEMORY: Final = 512
"""MiB that a target may take before that counts as unbounded growth; at first it takes some 100."""

MAX_SECONDS: Final = 20
"""For one case, before that counts as a hang; the targets that run have less patience of their own."""


def main() -> int:
    """Run what the arguments say; 0 if nothing was found."""
    parser = argparse.ArgumentParser(description="Fuzz every parser and both ends of every conversation.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(CASES)}")
    parser.add_argument("--cases", type=int, help="for each target; two million in all, if not given")
    parser.add_argument("--grow", action="store_true", help="add to the corpus what reaches more code")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(CASES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    targets = options.targets or list(CASES)
    with tempfile.TemporaryDirectory() as scratch:
        runs = [(name, options.cases or CASES[name], Path(scratch), options.grow) for name in targets]
        with ThreadPool(os.cpu_count()) as pool:
            return max(pool.starmap(_run, runs, chunksize=1))


def _run(name: str, cases: int, scratch: Path, grow: bool) -> int:  # noqa: FBT001 - starmap knows no keywords
    begun = time.monotonic()
    found, corpus = scratch / name, HERE / "corpus" / name
    found.mkdir()
    corpus.mkdir(parents=True, exist_ok=True)
    settings = [f"-runs={cases}", "-max_len=20000", f"-timeout={MAX_SECONDS}", f"-rss_limit_mb={MAX_MEMORY}"]
    outcome = subprocess.run(
        [sys.executable, HERE / "target.py", name, *settings, f"-artifact_prefix={HERE}/found-{name}-",
         *([corpus, found] if grow else [found, corpus])],
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": f"{TOP}:{HERE.parent}"},
        stderr=subprocess.PIPE, text=True, errors="replace", check=False,
    )  # fmt: skip
    print(f"{name}: {cases:,} cases, {time.monotonic() - begun:.0f} s", flush=True)
    if outcome.returncode:
        print(outcome.stderr[-6000:], flush=True)
    return outcome.returncode


if __name__ == "__main__":
    sys.exit(main())
