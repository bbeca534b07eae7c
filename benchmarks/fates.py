"""What more loops than trained do to a model, over trained models: the study behind `loopscope.evaluation.prognose`.

    python -m benchmarks.fates --out runs/fates --train               # 66 runs of about 1M parameters, one thread
    python -m benchmarks.fates --out runs/fates --train --dry-run     # what they would be

`loopscope study` does the training (`benchmarks.fates_grid` has the conditions). Called again it goes on where it
stopped; called several times at once, the calls share the runs.
"""

import argparse
from pathlib import Path

from benchmarks.fates_grid import SIZE, STEPS, rounds, settings, variants
from loopscope.jobs import planned_study, run_study


def main() -> None:
    """Do the asked part of the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/fates"))
    parser.add_argument("--train", action="store_true", help="train what is missing")
    parser.add_argument("--dry-run", action="store_true", help="check the grid, train nothing")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    if options.train:
        train(options.out, options.steps, options.dry_run)


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
