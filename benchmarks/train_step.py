"""A training step beside the plain way to take it: time, memory, precision, and what dense supervision costs.

    python -m benchmarks.train_step                               # 44M, 8 × 256: about 12 minutes on two cores
    python -m benchmarks.train_step --size laptop --batch 16 --threads 1

Every round takes one step of each kind in turn, so that a busy machine slows all of them: the step that training takes
(`training.step`), dense and terminal, in fp32 and bf16; the plain way (`loopscope.model.reference`), the same
mathematics written plainly, in both; and, through the same training step, the model without loops that has loops ×
layers layers of its own. Figures are medians over the rounds, of ratios within a round.

On a CPU each kind lives in a process of its own, and only one works at a time: how much the plain way pays for memory
depends on what else has grown its process's heap, and a user has one way or the other in a process, never both. Memory
is the peak of a step above weights and optimizer state, again each in its own process; looped against unlooped, with
them. MFU is the model's FLOPs (`plan.flops`) per second over the best product of large matrices, measured afterwards.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from benchmarks.environment import MEBI, again, elsewhere, environment, finish, table
from benchmarks.steps import KINDS, Kind, Step, build, peak_memory
from benchmarks.workers import serve, workers
from loopscope.config import recipe
from loopscope.training import matmul_peak, resolve_device, resolve_precision

COMPILE: dict[str, bool | str] = {"auto": "auto", "on": True, "off": False}

WEIGHT_BYTES = 12
"""Of a parameter before a step: itself and AdamW's two averages, in fp32."""


def main() -> None:
    """Time rounds of steps, measure memory, print rows as they come, end with one line of JSON."""
    options = _options()
    device = resolve_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.memory_of:
        print(peak_memory(options.memory_of, options, device))
        return
    torch.set_flush_denormal(options.flush_denormals)
    if options.serve:
        serve(lambda: build([options.serve], options, device)[options.serve])
        return
    own = resolve_precision("auto", device)
    precisions = ("fp32", "bf16") if options.dtype == "both" else (options.dtype,)
    main_one = own if own in precisions else precisions[0]
    chosen = [name for name, kind in KINDS.items() if _wanted(kind, precisions, main_one)]
    apart = device.type == "cpu"
    tokens = options.batch * (options.sequence or recipe(options.size).model.sequence)
    groups = []
    for names in _groups(chosen) if apart else [chosen]:
        with _apart(names) if apart else _together(names, options, device) as steps:
            groups.append(_rounds(steps, options.pairs))
        del steps
    seconds = {name: next(group[name] for group in groups if name in group) for name in chosen}
    peaks = {precision: matmul_peak(device, precision) for precision in precisions}  # type: ignore[arg-type]
    memory = {name: elsewhere("train_step", "--memory-of", name) for name in chosen}
    flops = {name: KINDS[name].flops(options) for name in chosen}
    print()
    _show(chosen, seconds, memory, flops, peaks, tokens)
    weights = {name: WEIGHT_BYTES * KINDS[name].parameters(options) for name in chosen}
    found = figures(groups, memory, flops, weights, precisions, main_one)
    finish(
        {
            "benchmark": "train_step",
            "size": options.size,
            "batch": options.batch,
            "tokens": tokens,
            "pairs": options.pairs,
            "compile": options.compile,
            "dropout": options.dropout,
            "clock": options.clock,
            "denormals_flushed": options.flush_denormals,
            "processes": "one a kind" if apart else "one for all",
            **found,
            "tokens_per_second": {name: round(tokens / statistics.median(s)) for name, s in seconds.items()},
            "peak_mib": {name: round(peak / MEBI) for name, peak in memory.items()},
            "matmul_gflops": {name: round(peak / 1e9) for name, peak in peaks.items()},
        },
        environment(device.type, main_one),
    )


def _groups(chosen: Sequence[str]) -> list[list[str]]:
    """By precision, so that fewer processes hold their memory at a time; our fp32 is in both, to compare bf16 with."""
    narrow = [name for name in chosen if KINDS[name].precision == "bf16"]
    wide = [name for name in chosen if name not in narrow]
    if not (narrow and wide):
        return [list(chosen)]
    return [wide, ["ours fp32", *narrow]]


def _apart(chosen: Sequence[str]) -> AbstractContextManager[dict[str, Step]]:
    return workers({name: again("train_step", "--serve", name) for name in chosen})


def _together(
    chosen: Sequence[str], options: argparse.Namespace, device: torch.device
) -> AbstractContextManager[dict[str, Step]]:
    # CUDA has its own caching allocator, so no kind pays for memory by what the heap held before. Processes would each
    # keep their cache and context on the one GPU, and give the others less room.
    steps = build(chosen, options, device)
    for step in steps.values():
        step()  # warm up: kernels, caches, the optimizer's state
    return nullcontext(steps)


def _rounds(steps: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds by kind, one step of each in turn; printed as they come."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    print("seconds a step")
    widths = [max(len(name), 6) for name in steps]
    print("round  " + "  ".join(name.rjust(width) for name, width in zip(steps, widths, strict=True)))
    for number in range(1, rounds + 1):
        row = []
        for (name, step), width in zip(steps.items(), widths, strict=True):
            seconds[name].append(step())
            row.append(f"{seconds[name][-1]:.3f}".rjust(width))
        print(f"{number:5}  " + "  ".join(row), flush=True)
    return seconds


def figures(
    groups: Sequence[Mapping[str, Sequence[float]]],
    memory: Mapping[str, float],
    flops: Mapping[str, float],
    weights: Mapping[str, float],
    precisions: Sequence[str],
    main_one: str,
) -> dict[str, object]:
    """The ratios, each the median over rounds. Where both precisions ran, the worse of the two is the headline."""

    def ratio(over: str, under: str) -> float:
        seconds = next(group for group in groups if over in group and under in group)
        pairs = zip(seconds[over], seconds[under], strict=True)
        return round(statistics.median(one / other for one, other in pairs), 3)

    speedups = {dtype: ratio(f"plain {dtype}", f"ours {dtype}") for dtype in precisions}
    shares = {dtype: round(memory[f"ours {dtype}"] / memory[f"plain {dtype}"], 3) for dtype in precisions}
    dense, terminal, deep = f"ours {main_one}", f"terminal {main_one}", f"unlooped {main_one}"
    return {
        "speedup_vs_baseline": min(speedups.values()),
        "memory_ratio_vs_baseline": max(shares.values()),
        "dense_over_terminal_time": ratio(dense, terminal),
        "bf16_over_fp32": ratio("ours fp32", "ours bf16") if len(precisions) == 2 else None,
        "speedup_by_dtype": speedups,
        "memory_ratio_by_dtype": shares,
        "dense_over_terminal_flops": round(flops[dense] / flops[terminal], 3),
        # The same loss on both sides: the last loop's, and that of the last layer.
        "looped_over_unlooped_tokens_per_second": ratio(deep, terminal),
        "looped_over_unlooped_memory": round(
            (memory[terminal] + weights[terminal]) / (memory[deep] + weights[deep]), 3
        ),
    }


def _show(
    chosen: Sequence[str],
    seconds: Mapping[str, Sequence[float]],
    memory: Mapping[str, float],
    flops: Mapping[str, float],
    peaks: Mapping[str, float],
    tokens: int,
) -> None:
    rows = []
    for name in chosen:
        median = statistics.median(seconds[name])
        speed = flops[name] * tokens / median
        rows.append(
            [
                name,
                f"{median:.3f}",
                f"{tokens / median:,.0f}",
                f"{speed / 1e9:,.0f}",
                f"{speed / peaks[KINDS[name].precision]:.0%}",
                f"{memory[name] / MEBI:,.0f}",
            ]
        )
    table(["step", "seconds", "tokens/s", "GFLOP/s", "MFU", "peak, MiB"], rows)
    print()


def _wanted(kind: Kind, precisions: Sequence[str], main_one: str) -> bool:
    if kind.only_main:
        return kind.precision == main_one
    return kind.precision in precisions


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="published-44m")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sequence", type=int, help="tokens of a window; the size's own by default")
    parser.add_argument("--pairs", type=int, default=5, help="rounds, each with one step of every kind")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=["both", "fp32", "bf16"], default="both")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dropout", type=float, help="the size's own by default")
    parser.add_argument(
        "--compile",
        choices=COMPILE,
        default="auto",
        help="training.compile of our steps; auto: as in a long run",
    )
    parser.add_argument("--checkpointing", choices=["none", "layer", "loop"], default="none")
    parser.add_argument(
        "--clock",
        choices=["wall", "processor"],
        default="wall",
        help="processor: for a busy machine, with --threads 1",
    )
    parser.add_argument("--flush-denormals", action="store_true", help="on both sides; PyTorch keeps them")
    parser.add_argument("--memory-of", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--serve", choices=list(KINDS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.compile = COMPILE[options.compile]
    if options.pairs < 1:
        parser.error(f"--pairs is {options.pairs}; give 1 or more (5 for figures to publish)")
    return options


if __name__ == "__main__":
    main()
