"""Does the engine know when to abstain? Each task set of a table is left out of training, and tested on.

Usage: measure_transfer.py TABLE [--seeds 1] [--routers best_single,dqn,quantum]

Prints a Markdown table with the success of each router on each task set, at cost weight 0, and its paired difference
to `best_single` with the 95% interval of docs/reference/evaluation.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> int:
    """Measure, and print; 1 if `quantum` is worse than `best_single` on a task set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--routers", default="best_single,dqn,quantum")
    options = parser.parse_args()
    opened = gzip.open if options.table.suffix == ".gz" else open
    with opened(options.table, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    program = str(Path(sys.executable).parent / "monkey-coder")
    worse = False
    print("| left out | tasks | best_single | router | success | difference |\n|---|---|---|---|---|---|")
    with TemporaryDirectory() as scratch:
        train, test, out = (Path(scratch) / name for name in ("train.jsonl", "test.jsonl", "result.json"))
        for task in sorted({row["task"] for row in rows}):
            train.write_text("\n".join(json.dumps(row) for row in rows if row["task"] != task))
            test.write_text("\n".join(json.dumps(row) for row in rows if row["task"] == task))
            arguments = ["--train", train, "--test", test, "--routers", options.routers, "--json", out]
            subprocess.run(  # noqa: S603 - our own program
                [program, "evaluate", *map(str, arguments), "--seeds", str(options.seeds)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            result = json.loads(out.read_text())
            base = result["routers"]["best_single"]["points"][0]["success"]
            for pair in result["paired"]:
                if pair["against"] != "best_single":
                    continue
                success = result["routers"][pair["router"]]["points"][0]["success"]
                worse |= pair["router"] == "quantum" and pair["low"] <= -0.01
                difference = f"{success - base:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]"
                print(
                    f"| {task} | {result['tasks']} | {base:.4f} | {pair['router']} | {success:.4f} | {difference} |",
                    flush=True,
                )
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())
