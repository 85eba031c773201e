"""``python -m benchmarks NAME [--json FILE] [--plot FILE]``."""

import argparse
import sys
from pathlib import Path

from benchmarks import cluster, fanout, latency, members, relay, report, scale, start, transfers
from benchmarks.load import LoadError
from benchmarks.processes import on_signals

BENCHMARKS = {
    "fanout": fanout,
    "members": members,
    "latency": latency,
    "relay": relay,
    "transfers": transfers,
    "cluster": cluster,
    "scale": scale,
    "start": start,
}


def main() -> int:
    """Run the named benchmark and show its results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=BENCHMARKS, help="; ".join(f"{n}: {m.__doc__}" for n, m in BENCHMARKS.items()))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them there, as PNG or SVG; needs matplotlib")
    options = parser.parse_args()
    on_signals()
    try:
        results = BENCHMARKS[options.name].run()
    except (LoadError, OSError) as error:  # of greenchat itself, or of what the whole benchmark is about
        raise SystemExit(f"{options.name}: {error}") from None
    print(report.as_text(results))
    if options.json:
        options.json.write_text(report.as_json(results))
    if options.plot:
        report.plot(results, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
