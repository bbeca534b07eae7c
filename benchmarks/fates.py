"""What more loops than trained do to a model, over trained models: the study behind `loopscope.evaluation.prognose`.

    python -m benchmarks.fates --size narrow --out runs/narrow --train    # 66 runs; laptop: 84, hours on one core
    python -m benchmarks.fates --size depths --out runs/depths --train    # 28 runs of a K that no fitted one has
    python -m benchmarks.fates --size flops --out runs/flops --train      # 61 runs at equal FLOPs
    python -m benchmarks.fates --size narrow --train --dry-run            # what they would be
    python -m benchmarks.fates --size narrow --out runs/narrow --measure  # K + 2 loops of each, and the truth to 4K
    python -m benchmarks.fates --fit                                      # write the constants, from narrow runs
    python -m benchmarks.fates --tables                                   # the tables of the results page

`loopscope study` does the training (`benchmarks.fates_grid` has the conditions). Called again it goes on where it
stopped; called several times at once, the calls share the runs. What was measured is `benchmarks/fates.json` (narrow),
`benchmarks/fates_laptop.json`, `benchmarks/fates_depths.json` and `benchmarks/fates_flops.json`, so that the fit and
the tables can be made again without the runs.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.environment import environment
from benchmarks.fates_entries import RECIPE, SHAPES, settings
from benchmarks.fates_fit import CONSTANTS, constants_module
from benchmarks.fates_flops_tables import flops_table
from benchmarks.fates_grid import rounds, variants
from benchmarks.fates_runs import RUNS, load_runs, measure_runs, shortened
from benchmarks.fates_tables import tables
from loopscope.jobs import planned_study, run_study


def main() -> None:
    """Do the asked parts of the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/fates"))
    parser.add_argument("--train", action="store_true", help="train what is missing")
    parser.add_argument("--dry-run", action="store_true", help="check the grid, train nothing")
    parser.add_argument("--measure", action="store_true", help="measure what was trained")
    parser.add_argument("--fit", action="store_true", help="write the constants")
    parser.add_argument("--tables", action="store_true", help="print the tables of the results page")
    parser.add_argument("--size", choices=list(SHAPES), default="laptop")
    parser.add_argument("--steps", type=int, default=None, help="of training, a run")
    options = parser.parse_args()
    if options.fit and options.tables:
        parser.error(
            "--tables shows what the constants in the package say: give it a call of its own after --fit"
        )
    if options.train:
        train(options)
    if options.measure:
        rows = [shortened(asdict(run)) for run in measure_runs(options.out, options.size)]
        lines = ",\n".join(json.dumps(row) for row in rows)
        steps = options.steps or SHAPES[options.size].steps
        where = json.dumps({**environment(), "steps": steps})
        RUNS[options.size].write_text(f'{{"where": {where}, "runs": [\n{lines}\n]}}\n', encoding="utf-8")
    if options.fit:
        CONSTANTS.write_text(constants_module(load_runs("narrow")), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(CONSTANTS)], check=True)
    if options.tables:
        unfitted = {size: load_runs(size) for size in SHAPES if size != "narrow"}
        print(tables(load_runs("narrow"), **unfitted))
        print(f"\n{flops_table(unfitted['flops'])}")


def train(options: argparse.Namespace) -> None:
    """Train every condition's first seed, then the second seeds, then the third ones."""
    size, steps, planned = options.size, options.steps, 0
    for seed, names in rounds(size):
        every = settings(size, steps), variants(size, steps)
        if options.dry_run:
            planned += len(planned_study(RECIPE, names, [seed], options.out, *every))
        else:
            run_study(RECIPE, names, [seed], options.out, every[0], wait=False, variants=every[1])
    if options.dry_run:
        print(f"{planned} runs of {steps or SHAPES[size].steps} steps in {options.out}")


if __name__ == "__main__":
    main()
