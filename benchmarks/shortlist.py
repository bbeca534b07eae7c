"""How well a shortlist's margin tracks the whole vocabulary's, on a trained run's own validation text.

    python -m benchmarks.shortlist runs/raw
    python -m benchmarks.shortlist runs/raw runs/rmsnorm --entries 64 256 --windows 64

Correlation of the two scores over sequences and over tokens (the lowest of the loops before the last), and the share
that leaves at the same loop when both rules use the same threshold: mean over the quantiles of a curve, without the
ends. The cost is that of one look, as a share of a whole readout.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.environment import environment, finish, table
from loopscope.evaluation import record_exits
from loopscope.evaluation.exits import exits_at, thresholds
from loopscope.evaluation.exits.rules import LogitMargin, ShortlistMargin, Sizes
from loopscope.jobs import held_out, open_model
from loopscope.results.evaluations import Unit

UNITS: tuple[Unit, ...] = ("sequence", "token")


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--entries", type=int, nargs="*", default=[64, 128, 256, 512])
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows, figures = [], []
    for path in options.runs:
        subject = open_model(path)
        text = held_out(subject, None, options.windows, None)
        whole = LogitMargin()
        full = record_exits(subject.model, text.batches(16), [whole], text.bytes_per_token)
        for entries in options.entries:
            few = ShortlistMargin(entries)
            short = record_exits(subject.model, text.batches(16), [few], text.bytes_per_token)
            found = {unit: _tracks(full.units(whole, unit), short.units(few, unit)) for unit in UNITS}
            vocab = subject.model.head(torch.zeros(1, subject.model.config.dim)).shape[-1]
            sizes = Sizes(
                subject.model.config.dim,
                vocab,
                text.input_ids.shape[1],
                2.0 * subject.model.config.dim * vocab,
            )
            first, later = (few.look_flops(loop, sizes) / sizes.readout for loop in (1, 2))
            rows.append(
                [subject.name, str(entries), f"{100 * first:.1f} %", f"{100 * later:.1f} %"]
                + [f"{value:.3f}" for unit in UNITS for value in found[unit]]
            )
            figures.append(
                {
                    "run": subject.name,
                    "entries": entries,
                    "vocabulary": vocab,
                    "first": first,
                    "later": later,
                    **found,
                }
            )
    headings = ["run", "entries", "look, loop 1", "look, later"]
    table([*headings, *(f"{what}, {unit}s" for unit in UNITS for what in ("correlation", "same exit"))], rows)
    finish({"benchmark": "shortlist", "figures": figures}, environment())


def _tracks(full, short) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    pairs = zip(full.scores, short.scores, strict=True)
    lowest = min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs)
    whole, few = LogitMargin(), ShortlistMargin()
    same = [
        float((exits_at(whole, full, at) == exits_at(few, short, at)).double().mean())
        for at in thresholds(full)[2:-2]
    ]
    return round(lowest, 4), round(sum(same) / len(same), 4)


if __name__ == "__main__":
    main()
