"""What early exit saves: realised speed-up beside K / mean loops and beside what the counted FLOPs allow.

    python -m benchmarks.early_exit                       # 44M, batch 32 × 256: about twenty minutes on two cores
    python -m benchmarks.early_exit --sequence 128 --pairs 3
    python -m benchmarks.early_exit --size laptop --pairs 3

Weights are random, which costs what trained ones cost. A raw readout with a head of its own makes margins grow from
loop to loop, as training does, and sequences draw their tokens from vocabularies of very different sizes, so that
they differ. Each rule's threshold is the one that brings this batch nearest to 2 of 4 loops on average; the table
shows how many sequences leave at each loop. Fixed depth and early exit run in turns on the same batch, and both give
every sequence's logits.
"""

import argparse

import torch

from benchmarks.environment import environment, finish, table
from loopscope.config import recipe
from loopscope.evaluation import AbstractExitRule, build_rule, measure_speed, record_exits
from loopscope.evaluation.exits import Sweep, exits_at
from loopscope.model import LoopedTransformer
from loopscope.plan import forward_flops

RULES = ("logit-margin", "shortlist-margin", "direction-step")
"""Whole logits, a few of them, none."""


def main() -> None:
    """Time every rule, then print the table and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="published-44m")
    parser.add_argument("--rules", nargs="*", default=list(RULES))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--mean-loops", type=float, default=2.0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = recipe(options.size, "dense/raw", {"model": {"tied": False}}).model
    sequence = min(options.sequence, config.sequence)
    torch.manual_seed(0)
    model = LoopedTransformer(config).eval()
    ids = varied_batch(options.batch, sequence, config.vocabulary)

    def flops(loops: int, exits: int) -> float:
        return float(forward_flops(config, sequence, loops, exits))

    rules = [rule for rule in map(build_rule, options.rules) if isinstance(rule, AbstractExitRule)]
    record = record_exits(model, [(part, part) for part in ids.split(4)], rules, 1.0)
    headings = ["rule", "left at loop 1 2 3 4", "mean loops", "fixed, s", "exit, s"]
    headings += ["realised", "ideal", "allowed", "realised / allowed"]
    rows, figures = [], {}
    for rule in rules:
        units = record.units(rule, "sequence")
        sweep = Sweep.of(rule, units)
        nearest = int((sweep.mean_loops - options.mean_loops).abs().argmin())
        threshold = float(sweep.thresholds[nearest])
        left = torch.bincount(exits_at(rule, units, threshold), minlength=model.loops + 1)[1:].tolist()
        speed = measure_speed(model, ids, rule, threshold, options.pairs, flops)
        assert speed.allowed is not None
        middle = [sorted(times)[len(times) // 2] for times in (speed.fixed_seconds, speed.exit_seconds)]
        ratios = (speed.realised, speed.ideal, speed.allowed, speed.realised / speed.allowed)
        rows.append(
            [rule.name, " ".join(map(str, left)), f"{speed.mean_loops:.2f}", *(f"{s:.2f}" for s in middle)]
            + [f"{ratio:.2f}" for ratio in ratios]
        )
        print(f"{rule.name}: {speed.realised:.2f} times, of {speed.allowed:.2f} that FLOPs allow", flush=True)
        names = ("realised", "ideal", "allowed", "realised_of_allowed")
        figures[rule.name] = {
            "mean_loops": round(speed.mean_loops, 3),
            "left_at": left,
            "fixed_seconds": [round(s, 3) for s in speed.fixed_seconds],
            "exit_seconds": [round(s, 3) for s in speed.exit_seconds],
            **{name: round(ratio, 3) for name, ratio in zip(names, ratios, strict=True)},
        }
    print()
    table(headings, rows)
    settings = {"benchmark": "early_exit", "size": options.size, "batch": options.batch, "sequence": sequence}
    finish({**settings, "rules": figures}, environment())


def varied_batch(batch: int, sequence: int, vocabulary: int) -> torch.Tensor:
    """Sequences of between 2 and all different tokens, evenly in the logarithm of how many."""
    sizes = torch.logspace(1, torch.log2(torch.tensor(float(vocabulary))).item(), batch, base=2).long()
    return torch.stack(
        [torch.randint(vocabulary, (int(size),))[torch.randint(int(size), (sequence,))] for size in sizes]
    )


if __name__ == "__main__":
    main()
