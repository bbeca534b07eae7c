"""Train two conditions over three seeds, and ask what the data separates.

    python examples/compare_conditions.py

Two steps of a tiny model are no result: the point is the call, and what it says. Fewer than three seeds
give no interval.
"""

import tempfile
from pathlib import Path

from loopscope.jobs import compare_study, run_study

TINY = {
    "model": {"dim": 16, "layers": 1, "heads": 2, "loops": 2, "vocabulary": 300, "sequence": 32},
    "data": {"max_bytes": 40_000, "max_validation_bytes": 2_000, "tokenizer": {"vocabulary": 300}},
    "training": {"steps": 2, "batch": 4, "monitor_every": 0},
}

with tempfile.TemporaryDirectory() as folder:
    study = Path(folder) / "study"
    run_study("small", ["dense/rmsnorm", "dense/raw"], seeds=[0, 1, 2], out=study, over=TINY, quiet=True)
    compared = compare_study(study, loops=2)
    for difference in compared.differences:  # the second minus the first: below 0 the second is better
        interval = difference.bits_per_byte
        print(
            f"loop {difference.loop}: {difference.other} minus {difference.one}: {interval.mean:+.3f} bits per byte "
            f"({interval.low:+.3f} to {interval.high:+.3f}), "
            f"{'separated' if difference.separated else 'not separated'}"
        )
    print(*compared.sentences, sep="\n")
