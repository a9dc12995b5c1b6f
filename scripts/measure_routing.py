"""Run every routing comparison that docs/results/routing.md reports, and write its tables.

Usage: measure_routing.py TABLES [--only NAME ...] [--tables-only] [--seeds 5] [--out docs/results]

TABLES is a folder with the outcome tables that the page names; they are public, but not part of this repository.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

MAIN = "random,cheapest,best_single,gary8d,ladder,knn,dqn,quantum,oracle"
COLLAPSES = "best_single," + ",".join(
    f"quantum:{name}" for name in ("best_score", "weighted", "consensus", "first_success", "combined")
)


PLACEBO = (
    " The figure that counts here is success at w = 0, where all make about the same number of attempts: a router may"
    " not beat `random` there. aiq rewards those who stop early when money counts, which needs no knowledge of models."
)

AGAINST = ("best_single", "ladder", "random")
"""Whom the page compares with; the JSON documents hold all pairs."""


@dataclass(frozen=True)
class Run:
    """One comparison: its name, what it shows, and the arguments of `monkey-coder evaluate` behind the tables."""

    name: str
    title: str
    arguments: str


RUNS = (
    Run("swebench", "Episodes of 4 attempts", f"--train swebench_django --split 5 --attempts 4 --routers {MAIN}"),
    Run(
        "swebench-noise",
        "Episodes of 4 attempts, verifier wrong 10% of the time",
        f"--train swebench_django --split 5 --attempts 4 --verifier-noise 0.1 --routers {MAIN}",
    ),
    Run(
        "routerbench-3",
        "Episodes of 3 attempts",
        f"--train routerbench_subset --holdout 0.3 --attempts 3 --routers {MAIN}",
    ),
    Run(
        "routerbench-3-noise",
        "Episodes of 3 attempts, verifier wrong 10% of the time",
        f"--train routerbench_subset --holdout 0.3 --attempts 3 --verifier-noise 0.1 --routers {MAIN}",
    ),
    Run("routerbench-1", "One attempt", f"--train routerbench_subset --holdout 0.3 --routers {MAIN}"),
    Run("llmrouter-1", "One attempt, no costs", f"--train llmrouter_9models --holdout 0.3 --routers {MAIN}"),
    Run(
        "livecodebench",
        "Trained on one task set, tested on another",
        f"--train livecodebench_gen_pre2024-07 --test livecodebench_tests_2023-24 --routers {MAIN}",
    ),
    Run(
        "placebo-swebench",
        "Placebo: outcomes shuffled among models",
        f"--train swebench_django --split 5 --attempts 4 --placebo --routers {MAIN}",
    ),
    Run(
        "placebo-routerbench",
        "Placebo: outcomes shuffled among models",
        f"--train routerbench_subset --holdout 0.3 --placebo --routers {MAIN}",
    ),
    Run(
        "collapses-swebench",
        "Each collapse",
        f"--train swebench_django --split 5 --attempts 4 --routers {COLLAPSES}",
    ),
    Run("collapses-routerbench", "Each collapse", f"--train routerbench_subset --holdout 0.3 --routers {COLLAPSES}"),
)


def command(run: Run, tables: Path, seeds: int, out: Path) -> list[str]:
    """The command line of a comparison."""
    words = [
        str(tables / f"{word}.jsonl.gz") if (tables / f"{word}.jsonl.gz").exists() else word
        for word in shlex.split(run.arguments)
    ]
    program = Path(sys.executable).parent / "monkey-coder"
    return [str(program), "evaluate", *words, "--seeds", str(seeds), "--json", str(out)]


def section(run: Run, result: dict[str, Any], seeds: int) -> str:
    """One comparison as Markdown."""
    priced = result["cost_ref"] is not None and any(r["aiq"] is not None for r in result["routers"].values())
    figure = "aiq" if priced else "success"
    lines = [
        f"## {run.title} (`{run.name}`)",
        "",
        "```console",
        f"$ monkey-coder evaluate {run.arguments} --seeds {seeds}",
        "```",
        "",
        f"{result['tasks']} test tasks, {result['dropped']} rows dropped." + (PLACEBO if result.get("placebo") else ""),
        "",
        f"| router | {figure} | success at w = 0 | USD a task at w = 0 | attempts at w = 0 |",
        "|---|---|---|---|---|",
    ]
    for name, router in result["routers"].items():
        first = router["points"][0]
        success = f"{first['success']:.3f} [{first['success_low']:.3f}, {first['success_high']:.3f}]"
        main = f"{router['aiq']:.3f} [{router['aiq_low']:.3f}, {router['aiq_high']:.3f}]" if priced else success
        cost = "" if first["cost_usd"] is None else f"{first['cost_usd']:.5f}"
        lines.append(f"| {name} | {main} | {success} | {cost} | {first['attempts']:.2f} |")
    lines += ["", f"| router | against | difference of {figure}, paired, 95% | verdict |", "|---|---|---|---|"]
    key = f"{figure}_difference"
    for pair in result["paired"]:
        if pair["against"] not in AGAINST:
            continue
        low, high = pair["low"], pair["high"]
        verdict = "better" if low > 0 else "not worse" if low > -0.01 else "-"
        lines.append(
            f"| {pair['router']} | {pair['against']} | {pair[key]:+.4f} [{low:+.4f}, {high:+.4f}] | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the comparisons; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    parser.add_argument("--only", nargs="*", choices=[run.name for run in RUNS], default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--tables-only", action="store_true", help="write the page from earlier runs")
    parser.add_argument("--work", type=Path, default=Path("var/measurements"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    failed = False
    for run in RUNS:
        if options.tables_only or (options.only and run.name not in options.only):
            continue
        result = options.work / f"{run.name}.json"
        print(f"{run.name} ...", flush=True)
        failed |= (
            subprocess.run(  # noqa: S603 - our own program, with arguments from above
                command(run, options.tables, options.seeds, result), stdout=subprocess.DEVNULL, check=False
            ).returncode
            != 0
        )
    done = [(run, options.work / f"{run.name}.json") for run in RUNS]
    sections = [section(run, json.loads(path.read_text()), options.seeds) for run, path in done if path.exists()]
    page = f"<!-- Written by scripts/measure_routing.py on {date.today().isoformat()}. -->\n\n" + "\n".join(sections)
    (options.out / "routing_tables.md").write_text(f"# Routing comparisons\n\n{page}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
