"""The published conditions at laptop size: train, evaluate, compare, and write the tables of docs/results/laptop.md.

    python -m benchmarks.laptop --out runs/laptop                 # three seeds of seven conditions: hours on one core
    python -m benchmarks.laptop --out runs/laptop --tables-only   # from what is there

Each step is a command that goes on where it stopped: `loopscope study`, `evaluate depth`, `evaluate compare --time`,
`audit`, `evaluate exits` and `report`. `--tables-only` reads their records.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.environment import environment, interval_text
from loopscope.results import (
    EVALUATION,
    Calibration,
    Comparison,
    Interval,
    ModelEvaluation,
    load_audits,
    load_comparison,
    load_evaluation,
    run_folder,
    trained_runs,
)
from loopscope.results.layout import AUDIT, run_files
from loopscope.results.student_t import over_seeds, over_seeds_of

CONDITIONS = (
    *("dense/rmsnorm", "dense/raw", "dense/final-only", "dense/rmsnorm+penalty", "terminal/rmsnorm"),
    *("unlooped", "unlooped-deep"),
)


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/laptop"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tables-only", action="store_true")
    options = parser.parse_args()
    out = options.out
    if not options.tables_only:
        _run(options)
    runs = [load_evaluation(path) for path in run_files(out, EVALUATION)]
    groups: dict[str, list[ModelEvaluation]] = {}
    for run in runs:
        if run is not None and run.depth:
            groups.setdefault(str(run.condition), []).append(run)
    comparison = load_comparison(out)
    if not groups or comparison is None:
        raise ValueError(f"{out} has no evaluation and comparison yet; leave out --tables-only")
    print(_depths(groups, out))
    print(_matched(comparison))
    print(_exits(groups))
    print("\n".join(f"- {sentence}" for sentence in comparison.sentences))
    print(
        json.dumps(
            {"benchmark": "laptop", "runs": len(runs), **environment(), "settings": comparison.settings}
        )
    )


def _run(options: argparse.Namespace) -> None:
    out, threads = str(options.out), ["--threads", str(options.threads)]
    training = [
        *("--training.steps", str(options.steps), "--training.threads", str(options.threads)),
        *("--training.evaluate-every", "100", "--training.checkpoint-every", "100"),
    ]
    names = ["--conditions", ",".join(CONDITIONS), "--seeds", str(options.seeds)]
    _loopscope("study", "--size", "laptop", *names, "--out", out, *training)
    _loopscope("evaluate", "depth", out, *threads)
    _loopscope("evaluate", "compare", out, "--time", *threads)
    _loopscope("audit", out, *threads)
    looped = [str(path) for path in trained_runs(options.out) if "unlooped" not in path.parent.name]
    _loopscope("evaluate", "exits", *looped, *threads)
    _loopscope("report", out)


def _loopscope(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "loopscope.cli", *arguments], check=True)


def _depths(groups: dict[str, list[ModelEvaluation]], out: Path) -> str:
    """One row per condition: bits per byte, perplexity and norm by loop, means over seeds."""
    lines = [
        "| condition | verdict | perplexity, loops 1 / 2 / 3 / 4 / 8 | bits per byte at K | L2 norm, loops 1 / 4 / 8 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for condition in CONDITIONS:
        group = groups.get(condition, [])
        if not group:
            continue
        depth, trained = len(group[0].depth[0].per_loop), group[0].trained_loops
        perplexity = [_mean(group, loop, "perplexity") for loop in (1, 2, 3, 4, 8) if loop <= depth]
        norm = [_mean(group, loop, "l2_norm") for loop in (1, 4, 8) if loop <= depth]
        bits = _mean(group, trained, "bits_per_byte")
        row = [condition, _verdict(out, condition), _list(perplexity), interval_text(bits, 3), _list(norm)]
        lines.append(f"| {' | '.join(row)} |")
        if len(group[0].depth) > 1:
            exits = [
                over_seeds_of("perplexity", [run.depth[1].per_loop[loop].perplexity for run in group])
                for loop in range(trained)
            ]
            lines.append(f"| {condition}, exits as trained | | {_list(exits)} | | |")
    return "\n".join(lines) + "\n"


def _matched(comparison: Comparison) -> str:
    lines = [
        "| model | role | parameters | FLOPs/token | training FLOPs | bits per byte | against looped | separated |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in comparison.matched:
        flops = [f"{value:.3g}" if value else "" for value in (row.inference_flops, row.training_flops)]
        against = "" if row.against is None else interval_text(row.against, 3, sign=True)
        separated = "" if row.against is None else "yes" if row.separated else "no"
        cells = [row.condition, row.role, f"{row.parameters:,}", *flops, interval_text(row.bits_per_byte, 3)]
        lines.append(f"| {' | '.join([*cells, against, separated])} |")
    return "\n".join(lines) + "\n"


def _exits(groups: dict[str, list[ModelEvaluation]]) -> str:
    """Thresholds chosen for at most 1 % more perplexity, on text they were not chosen on: every seed, and the mean."""
    lines = [
        "| condition | unit | rule | mean loops | perplexity above full depth | held, of seeds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for condition in CONDITIONS:
        found: dict[tuple[str, str], list[Calibration]] = {}
        for run in groups.get(condition, []):
            for entry in run.exits.calibrations if run.exits else ():
                if entry.target == "perplexity":
                    found.setdefault((entry.unit, entry.rule), []).append(entry)
        for (unit, rule), entries in found.items():
            # Where no threshold leaves early the model runs to full depth.
            tested = [entry.tested_on or entry.full_depth for entry in entries]
            loops = over_seeds_of("mean_loops", [point.mean_loops for point in tested])
            ratios = [
                point.perplexity / entry.full_depth.perplexity
                for point, entry in zip(tested, entries, strict=True)
            ]
            above = over_seeds([100 * (ratio - 1) for ratio in ratios])
            held = f"{sum(entry.held is not False for entry in entries)} of {len(entries)}"
            cells = [
                condition,
                unit,
                rule,
                interval_text(loops, 2),
                interval_text(above, 1, sign=True) + " %",
                held,
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(group: list[ModelEvaluation], loop: int, field: str) -> Interval:
    return over_seeds_of(field, [getattr(run.depth[0].per_loop[loop - 1], field) for run in group])


def _verdict(out: Path, condition: str) -> str:
    path = run_folder(out, condition, 0) / AUDIT
    return load_audits(path)[0].report.verdict if path.is_file() else ""


def _list(intervals: list[Interval]) -> str:
    return " / ".join(_short(interval.mean) for interval in intervals)


def _short(value: float) -> str:
    return f"{value:.1e}" if value >= 1e6 else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
