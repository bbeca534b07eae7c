"""The paper's claim with seeds: does control of scale give lower perplexity at matched depth, and against no loops?

    python -m benchmarks.claim --out runs/claim --train                     # 1M parameters, 3M tokens a run: hours
    python -m benchmarks.claim --out runs/claim --train --only published    # one start alone
    python -m benchmarks.claim --out runs/claim --size 0.7m --only scaled --train    # 307 k tokens: an hour on one core
    python -m benchmarks.claim --out runs/claim --size 8m --tokens 1000000 --rate 3e-4 --train   # another rate
    python -m benchmarks.claim --out runs/claim --only scaled --equal-flops --train    # no loops, more tokens instead
    python -m benchmarks.claim --tables                                     # the tables of the results page

A run that has ended is measured on held-out text and becomes a row of `benchmarks/claim.json`; what has a row there is
not trained again, on this machine or another. Seeds come in turn, so that all conditions have as many. A run that was
stopped goes on from its last checkpoint; called several times at once, the calls share the runs.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.claim_rows import RATE, Row, add_row, load_rows
from benchmarks.claim_tables import BLIND, UNLOOPED, tables
from benchmarks.environment import environment
from benchmarks.fates_grid import CLAIMED
from loopscope.config.run_config import kept_config
from loopscope.evaluation.depth.curve import depth_curves
from loopscope.jobs import open_model, run_study
from loopscope.jobs.study_cells import plan
from loopscope.jobs.text import held_out
from loopscope.plan.training_flops import training_cost
from loopscope.results import load_results, run_folder
from loopscope.results.layout import RESULT

STARTS = ("published", "scaled")
WINDOWS = 512


@dataclass(frozen=True)
class Shape:
    """What all runs of one size have beside their start and condition."""

    recipe: str
    conditions: tuple[str, ...]
    seeds: int
    tokens: int  # of training, a run
    batch: int
    sequence: int
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    schedule: str

    @property
    def step_tokens(self) -> int:
        """Tokens of a training step."""
        return self.batch * self.sequence


_BPE = {"max_bytes": 14_000_000, "tokenizer": {"kind": "bpe", "vocabulary": 4096}}
SHAPES = {
    "0.7m": Shape(  # the runs of `benchmarks.fates --size laptop`, scaled start
        "small",
        (*CLAIMED, "unlooped-deep"),
        5,
        307_200,
        8,
        64,
        {"dim": 128, "layers": 2, "heads": 4, "vocabulary": 1024},
        {"tokenizer": {"kind": "bpe", "vocabulary": 1024}},
        "constant",
    ),
    "1m": Shape(
        "laptop",
        (
            *("dense/rmsnorm", "dense/raw", "dense/final-only", "dense/rmsnorm+penalty"),
            *("terminal/rmsnorm", "unlooped-deep"),
        ),
        5,
        3_000_000,
        16,
        128,
        {"dim": 128, "layers": 2, "heads": 4, "vocabulary": 4096},
        _BPE,
        "cosine",
    ),
    "8m": Shape(
        "laptop",
        ("dense/rmsnorm", "dense/raw", "dense/rmsnorm+penalty", "unlooped-deep"),
        2,
        3_000_000,
        16,
        128,
        {"dim": 320, "layers": 4, "heads": 5, "vocabulary": 4096},
        _BPE,
        "cosine",
    ),
}


def main() -> None:
    """Do the asked parts of the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/claim"))
    parser.add_argument("--size", choices=list(SHAPES), default="1m")
    parser.add_argument("--only", choices=STARTS, default=None, help="train runs of this start alone")
    parser.add_argument("--conditions", nargs="+", default=None, help="train these alone")
    parser.add_argument("--seeds", type=int, default=None, help="as many of the seeds at most")
    parser.add_argument("--tokens", type=int, default=None, help="of training, a run")
    parser.add_argument("--rate", type=float, default=RATE, help="the highest learning rate of a run")
    parser.add_argument(
        "--equal-flops",
        action="store_true",
        help=f"train {UNLOOPED} alone, with as many more tokens as make its FLOPs those of {BLIND}",
    )
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--tables", action="store_true")
    options = parser.parse_args()
    shape = SHAPES[options.size]
    if unknown := set(options.conditions or ()) - set(shape.conditions):
        parser.error(f"--conditions {sorted(unknown)}: allowed are {', '.join(shape.conditions)}")
    options.steps = round((options.tokens or shape.tokens) / shape.step_tokens)
    if options.equal_flops:
        options.conditions, options.steps = [UNLOOPED], equal_steps(shape, options.steps)
    if options.train:
        for start, condition, seed in cells(options):
            train(options, start, condition, seed)
    if options.tables:
        print(tables(load_rows()))


def cells(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """What is trained, in order: every seed of all conditions before the next one."""
    shape = SHAPES[options.size]
    for seed in range(options.seeds or shape.seeds):
        for start in STARTS if options.only is None else [options.only]:
            for condition in options.conditions or shape.conditions:
                yield start, condition, seed


def equal_steps(shape: Shape, steps: int) -> int:
    """Steps of the model without loops that cost what `steps` of the blind looped one cost."""
    configs = plan(
        shape.recipe, [BLIND, UNLOOPED], [0], settings(shape, STARTS[0], steps, "fp32"), None, False
    )
    looped, unlooped = map(training_cost, configs)
    return round(steps * looped / unlooped)


def settings(shape: Shape, start: str, steps: int, precision: str, rate: float = RATE) -> dict[str, Any]:
    """What all runs of one size and start have beside their condition."""
    return {
        "model": {**shape.model, "sequence": shape.sequence, "initialisation": start},
        "data": shape.data,
        "training": {
            "steps": steps,
            "batch": shape.batch,
            "precision": precision,
            "learning_rate": rate,
            "schedule": shape.schedule,
            "threads": 1,
            "compile": True,
            "evaluate_every": None,
            "final_windows": 64,
            "checkpoint_every": 200,
        },
    }


def train(options: argparse.Namespace, start: str, condition: str, seed: int) -> None:
    """Train one run where it has no row yet, and add its row."""
    shape = SHAPES[options.size]
    tokens = options.steps * shape.step_tokens
    wanted = options.size, start, condition, seed, tokens, options.rate
    if any(row.run == wanted for row in load_rows()):
        return
    rate = "" if options.rate == RATE else f"-{options.rate:g}"
    out = options.out / f"{options.size}-{start}{rate}{'-equal-flops' if options.equal_flops else ''}"
    changes = settings(shape, start, options.steps, options.precision, options.rate)
    run_study(shape.recipe, [condition], [seed], out, changes, wait=False)
    folder = run_folder(out, condition, seed)
    if (folder / RESULT).is_file():  # else another call is at it
        add_row(measure(folder, options, tokens, start, condition, seed))


def measure(
    folder: Path, options: argparse.Namespace, tokens: int, start: str, condition: str, seed: int
) -> Row:
    """Return the row of a run that has ended."""
    opened = open_model(folder)
    text = held_out(opened, None, WINDOWS)
    trained = opened.model.loops
    curves = depth_curves(
        opened.model, text.batches(16), text.bytes_per_token, 1 if trained == 1 else 2 * trained
    )
    (result,) = load_results(folder).runs
    config = kept_config(result.config, result.condition)
    deep = curves[0].per_loop
    return Row(
        size=options.size,
        start=start,
        condition=condition,
        seed=seed,
        tokens=tokens,
        precision=options.precision,
        parameters=sum(each.numel() for each in opened.model.parameters()),
        training_flops=float(training_cost(config)) * tokens,
        trained_loops=trained,
        losses=tuple(row.loss for row in deep),
        as_trained=tuple(row.loss for row in curves[1].per_loop) if len(curves) > 1 else None,
        bits_per_byte=tuple(row.bits_per_byte for row in deep),
        l2_norm=tuple(row.l2_norm for row in deep),
        date=environment()["date"],
        learning_rate=options.rate,
    )


if __name__ == "__main__":
    main()
