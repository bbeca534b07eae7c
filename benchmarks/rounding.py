"""What a control of scale costs under rounding: every run of a study in other number formats, to four times its depth.

    python -m benchmarks.rounding runs/fates --out runs/rounding
    python -m benchmarks.rounding runs/fates --out runs/rounding --tables-only

One record per run, written as it is measured: called again, it goes on where it stopped, also with more runs in the
study. The rounding is `audit.measure_rounding`'s; beside it stand scales, the share of the start in the state, and the
loop map's spectral radius with its angular part at every loop to four times the depth. Runs of families count as
held out: no threshold and no fit has seen them. Prints tables, and one JSON line with the figures.
"""

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import environment, finish
from benchmarks.rounding_tables import FORMATS, print_tables
from loopscope.audit import measure_dynamics, measure_rounding
from loopscope.audit.audit_report import BEYOND
from loopscope.config import FAMILIES
from loopscope.config.nested import read_yaml
from loopscope.guards import evaluating
from loopscope.jobs import open_model
from loopscope.jobs.text import some_windows
from loopscope.numerics import l2_norm, scale
from loopscope.recurrence import unroll
from loopscope.results import to_json, trained_runs
from loopscope.results.layout import CONFIG, newest_checkpoint, write_text

WINDOWS = 4
"""Sequences of the run's own validation text."""


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/rounding"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tables-only", action="store_true")
    parser.add_argument("--most", type=int, default=None, help="runs to measure in this call")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.tables_only:
        waiting = [
            (run, record)
            for study in options.studies
            for run in trained_runs(study)
            if is_done(run)
            and not (record := options.out / f"{study.name}-{run.parent.name}-{run.name}.json").exists()
        ]
        for run, record in waiting[: options.most]:
            print(f"{run.parent.name} {run.name}", flush=True)
            write_text(record, to_json(measure(run)))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.out.glob("*.json"))]
    if not records:
        raise ValueError(f"{options.out} holds no record; leave out --tables-only")
    figures = print_tables(records)
    finish({"benchmark": "rounding", "runs": len(records), **figures}, environment())


def is_done(run: Path) -> bool:
    """Whether a run has come to the end of its steps."""
    newest = newest_checkpoint(run)
    steps = (read_yaml(run / CONFIG).get("training") or {}).get("steps")
    return newest is not None and newest.name.endswith(f"{steps:08d}")


def measure(run: Path) -> dict[str, Any]:
    """Return one run's record."""
    opened = open_model(run)
    text = some_windows(opened, None, WINDOWS, None)
    settings = read_yaml(run / CONFIG)
    depth = BEYOND * opened.model.loops
    deep = open_model(run, loops=depth).model
    with evaluating(opened.model), evaluating(deep):
        dynamics = measure_dynamics(deep, text.input_ids)
        found = measure_rounding(
            opened.model, text.input_ids, text.labels, FORMATS, depth, dynamics[: opened.model.loops]
        )
        scales, start = [], math.nan
        with torch.no_grad():
            for state in unroll(opened.model, text.input_ids, depth):
                scales.append(float(scale(state.hidden).mean()))
                if state.loop == opened.model.loops:
                    start = float((l2_norm(state.context.embedded) / l2_norm(state.hidden)).mean())
    condition = str(settings["condition"])
    return {
        "condition": condition,
        "seed": settings["training"]["seed"],
        "family": condition.partition(":")[0] in FAMILIES,
        "size": settings["size"],
        "loops": opened.model.loops,
        "parameters": sum(each.numel() for each in opened.model.parameters()),
        "steps": settings["training"]["steps"],
        "tokens": settings["training"]["steps"]
        * settings["training"]["batch"]
        * settings["model"]["sequence"],
        "scales": scales,
        "start_share": start,
        "spectral": [each.spectral_radius for each in dynamics],
        "radial": [each.radial for each in dynamics],
        "angular": [each.angular for each in dynamics],
        "converged": [each.converged for each in dynamics],
        "rounding": {each.format: asdict(each) for each in found},
    }


if __name__ == "__main__":
    main()
