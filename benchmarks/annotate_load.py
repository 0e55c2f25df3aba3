"""Fifty raters against the rating tool while it is killed: is every acknowledged rating there exactly once?

    python benchmarks/annotate_load.py                         # 5 posts a second together, 2 minutes, 2 kills
    python benchmarks/annotate_load.py --each                  # 5 posts a second each: 250 together
    python benchmarks/annotate_load.py --seconds 10 --kills 1  # a look

Server and raters share this machine. Exit code 1 if a rating was lost, doubled or changed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.annotate_load import check, run_load


def main() -> int:
    """Run the load and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--rate", type=float, default=5.0, help="posts a second")
    parser.add_argument("--each", action="store_true", help="so many from every rater")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--database", default="", help="postgresql://… of an empty database")
    args = parser.parse_args()
    rate = args.rate * (args.raters if args.each else 1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "workspace"
        print(
            f"{args.raters} raters, {rate:g} posts a second together, {args.seconds:g} s, {args.kills} kills"
        )
        begin = time.perf_counter()
        result = run_load(root, args.raters, rate, args.seconds, args.kills, args.database)
        found = check(root, result)
        took = time.perf_counter() - begin
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs, {took:.0f} s in all")
    up = args.seconds - sum(result.down_s)
    print(f"posts answered: {len(result.post_s)}, {len(result.post_s) / up:.1f}/s while it was up")
    print(f"posts: {result.percentiles(result.post_s)}")
    print(f"next tasks: {result.percentiles(result.next_s)} ({len(result.next_s)})")
    down = ", ".join(f"{seconds:.1f} s" for seconds in result.down_s) or "never"
    print(f"down after a kill: {down}; sent again: {result.resent}")
    for name, number in found.items():
        print(f"{name}: {number}")
    for reason, number in result.refused.items():
        print(f"  refused {number}: {reason}")
    wrong = [name for name in list(found)[2:] if found[name]]
    print("FAILED: " + ", ".join(wrong) if wrong else "every acknowledged rating is there exactly once")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
