"""What more loops than trained do to a model, over trained models: the study behind `loopscope.evaluation.prognose`.

    python -m benchmarks.fates --out runs/fates --train               # 66 runs of about 1M parameters, one thread
    python -m benchmarks.fates --out runs/fates --train --dry-run     # what they would be
    python -m benchmarks.fates --out runs/fates --measure             # every run's K + 2 loops, and the truth to 4K
    python -m benchmarks.fates --fit                                  # write the constants, from what was measured
    python -m benchmarks.fates --tables                               # the tables of the results page

`loopscope study` does the training (`benchmarks.fates_grid` has the conditions). Called again it goes on where it
stopped; called several times at once, the calls share the runs. What was measured is `benchmarks/fates.json`, so that
the fit can be made again without the runs.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.environment import environment
from benchmarks.fates_fit import CONSTANTS, constants_module
from benchmarks.fates_grid import SIZE, STEPS, rounds, settings, variants
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
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    if options.fit and options.tables:
        parser.error(
            "--tables shows what the constants in the package say: give it a call of its own after --fit"
        )
    if options.train:
        train(options.out, options.steps, options.dry_run)
    if options.measure:
        rows = [shortened(asdict(run)) for run in measure_runs(options.out)]
        lines = ",\n".join(json.dumps(row) for row in rows)
        where = json.dumps({**environment(), "steps": options.steps})
        RUNS.write_text(f'{{"where": {where}, "runs": [\n{lines}\n]}}\n', encoding="utf-8")
    if options.fit:
        CONSTANTS.write_text(constants_module(load_runs()), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(CONSTANTS)], check=True)
    if options.tables:
        print(tables(load_runs()))


def train(out: Path, steps: int, dry_run: bool) -> None:
    """Train every condition's first seed, then the second seeds, then the third ones."""
    planned = 0
    for seed, names in rounds(steps):
        if dry_run:
            planned += len(planned_study(SIZE, names, [seed], out, settings(steps), variants(steps)))
        else:
            run_study(SIZE, names, [seed], out, settings(steps), wait=False, variants=variants(steps))
    if dry_run:
        print(f"{planned} runs of {steps} steps in {out}")


if __name__ == "__main__":
    main()
