"""`python -m tests.crash --kills 50`: SIGKILL at random moments, inside saves too, over every way to train.

Every run that was killed must resume, lose no more than one interval between saves (two where saves go on in the
background), and end in the losses, weights and optimizer of the same run in one piece, bit for bit. Prints a table and
one JSON line; exits with 1 where any did not.
"""

import argparse
import json
import os
import random
import resource
import sys
import tempfile
from pathlib import Path

from tests.crash.kills import kill_runs, summary
from tests.crash.trainers import WAYS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments to kill at")
    parser.add_argument("--ways", default=",".join(WAYS))
    options = parser.parse_args()
    ways = [way for way in WAYS if way in options.ways.split(",")]
    numbers = random.Random(options.seed)
    print(f"seed {options.seed}: {options.kills} kills over {', '.join(ways)}", flush=True)
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LOOPSCOPE_CACHE"] = f"{folder}/cache"
        for place, way in enumerate(ways):
            share = (options.kills + len(ways) - 1 - place) // len(ways)
            outcome = kill_runs(way, share, Path(folder), numbers)
            outcomes.append(outcome)
            inside = sum(kill.inside_save for kill in outcome.kills)
            print(
                f"{way:11} {len(outcome.kills):3} kills, {inside:3} inside a save; {outcome.runs} runs, "
                f"{outcome.equal} equal; at most {outcome.most_lost} steps lost, of {outcome.may_lose}",
                flush=True,
            )
    found = summary(outcomes, options.seed)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found["processor_seconds"] = round(sum(each.ru_utime + each.ru_stime for each in used), 1)
    print(json.dumps(found))
    good = all(
        outcome.equal == outcome.runs and outcome.most_lost <= outcome.may_lose for outcome in outcomes
    )
    return 0 if good and not found["problems"] else 1


if __name__ == "__main__":
    sys.exit(main())
