"""What an audit costs, in training steps of the same model and batch, and whether its memory grows with depth.

    python -m benchmarks.audit                       # 44M, batch 8 × 256: about five minutes on two cores
    python -m benchmarks.audit --size laptop --pairs 5
    python -m benchmarks.audit --against fa50153     # this build's audit over that commit's: see audit_against

Audits work in fp32, so the baseline is the fp32 training step; the step in the precision that training would use
here is timed beside it. Pairs alternate: some steps, then one audit. Memory is the peak of a process of its own per
depth, because a peak never comes down.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext

import torch

import loopscope
from benchmarks.audit_against import compare
from benchmarks.audit_process import ROWS
from benchmarks.environment import environment, finish, table
from loopscope import unroll
from loopscope.audit import measure_expansion
from loopscope.config import recipe
from loopscope.model import LoopedTransformer
from loopscope.objectives import build_objective
from loopscope.training import build_optimizer, resolve_precision

STEPS = 2
"""Training steps timed in every pair, each way."""


def main() -> None:
    """Time audits against training steps, then measure memory by depth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="published-44m")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, help="3; 5 against a commit")
    parser.add_argument("--against", metavar="COMMIT", help="a commit to compare this build's audit with")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help="what is audited against a commit")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depths", type=int, nargs="*", default=[4, 16, 64])
    parser.add_argument("--unroll-only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.pairs = options.pairs or (5 if options.against else 3)
    torch.set_num_threads(options.threads)
    if options.against:
        compare(options)
        return
    if options.unroll_only:
        print(_peak(options.size, options.batch, options.unroll_only))
        return
    model, ids, labels, objective = _setup(options.size, options.batch)
    optimizer = build_optimizer(model, recipe(options.size).training)

    def step(precision: str) -> float:
        began = time.perf_counter()
        autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
        with autocast:
            loss = objective(unroll(model.train(), ids), labels)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began

    def audit() -> float:
        began = time.perf_counter()
        loopscope.audit(model, ids, labels, objective)
        return time.perf_counter() - began

    own = resolve_precision("auto", torch.device("cpu"))
    step("fp32"), step(own)  # warm up
    rows, ratios, own_ratios = [], [], []
    for pair in range(1, options.pairs + 1):
        slow = statistics.mean(step("fp32") for _ in range(STEPS))
        fast = statistics.mean(step(own) for _ in range(STEPS))
        cost = audit()
        ratios.append(cost / slow)
        own_ratios.append(cost / fast)
        print(f"pair {pair}: fp32 step {slow:.2f} s, {own} step {fast:.2f} s, audit {cost:.1f} s", flush=True)
        rows.append(
            [
                str(pair),
                f"{slow:.2f}",
                f"{fast:.2f}",
                f"{cost:.1f}",
                f"{cost / slow:.1f}",
                f"{cost / fast:.1f}",
            ]
        )
    headings = [
        "pair",
        "fp32 step, s",
        f"{own} step, s",
        "audit, s",
        "audit / fp32 step",
        f"audit / {own} step",
    ]
    table(headings, rows)
    peaks = {depth: _peak_elsewhere(options, depth) for depth in options.depths}
    print()
    table(["unrolled to loop", "peak memory, MiB"], [[str(d), f"{peak:,.0f}"] for d, peak in peaks.items()])
    finish(
        {
            "benchmark": "audit",
            "size": options.size,
            "batch": options.batch,
            "sequence": ids.shape[1],
            "pairs": options.pairs,
            "audit_in_fp32_steps": round(statistics.median(ratios), 2),
            f"audit_in_{own}_steps": round(statistics.median(own_ratios), 2),
            "peak_mib_by_depth": {str(depth): round(peak) for depth, peak in peaks.items()},
        },
        environment(),
    )


def _setup(size: str, batch: int):  # type: ignore[no-untyped-def]
    config = recipe(size, "dense/rmsnorm")
    torch.manual_seed(0)
    model = LoopedTransformer(config.model)
    tokens = torch.randint(config.model.vocabulary, (batch, config.model.sequence + 1))
    return model, tokens[:, :-1], tokens[:, 1:], build_objective(config.objective)


def _peak(size: str, batch: int, depth: int) -> float:
    model, ids, _, _ = _setup(size, batch)
    measure_expansion(model.eval(), ids, depth)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kB on Linux


def _peak_elsewhere(options: argparse.Namespace, depth: int) -> float:
    command = [
        sys.executable,
        "-m",
        "benchmarks.audit",
        "--size",
        options.size,
        "--batch",
        str(options.batch),
    ]
    command += ["--threads", str(options.threads), "--unroll-only", str(depth)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
