"""What one GPU does, in one command: training, an audit, exits, generation. Under eight minutes.

    python -m benchmarks.gpu                          # CUDA: 44M and 129M, 64 × 256 and 32 × 1024, bf16
    python -m benchmarks.gpu --device cpu --small     # the same code at a size that a CPU runs in a minute

For every size and batch: our step (as it is, layers compiled, checkpointed by loop), the baseline's and the unlooped
model's, in turn, in rounds; tokens per second, MFU against the measured matmul peak, peak memory above weights and
optimizer state. A step that does not fit the memory is shown as such, and the table goes on. `--budget` stops a
block's rounds early, so that the whole table keeps its time; every ratio says how many rounds it is the median of.
Then, for every size, what looking costs (`benchmarks.gpu_looks`), with a decode step as a CUDA graph
(`benchmarks.graph_decode`): an experiment, not part of the package. A peak that a step beats is measured again.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.environment import environment, finish, table
from benchmarks.gpu_looks import looks
from benchmarks.steps import KINDS, build
from loopscope.training import Precision, matmul_peak, resolve_device
from loopscope.training.throughput import raised_peak, wider_peak

BLOCKS = [
    ("published-44m", 64, 256),
    ("published-44m", 32, 1024),
    ("published-129m", 64, 256),
    ("published-129m", 32, 1024),
]
SMALL = [("laptop", 2, 64), ("laptop", 1, 128)]
VARIANTS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, compiled": {"compile": True},
    "ours, checkpoint by loop": {"checkpointing": "loop"},
    "terminal": {},
    "unlooped": {},
    "baseline": {},
}
GIBI = 2**30


def main() -> None:
    """Measure every block; print its table as it comes; end with one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--small", action="store_true", help="a size for trying the command out")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--budget", type=float, default=330.0, help="seconds for the steps")
    parser.add_argument("--skip-compiled", action="store_true")
    options = parser.parse_args()
    device = resolve_device(options.device)
    precision: Precision = options.dtype
    peak = matmul_peak(device, precision)
    print(f"matmul peak: {peak / 1e12:.3g} TFLOP/s in {precision}\n", flush=True)
    blocks, found = (SMALL if options.small else BLOCKS), []
    began = time.perf_counter()
    for number, (size, batch, sequence) in enumerate(blocks):
        left = options.budget - (time.perf_counter() - began)
        deadline = time.perf_counter() + left / (len(blocks) - number)
        block, peak = _block(size, batch, sequence, options, device, peak, deadline)
        found.append(block)
    sizes = dict.fromkeys(size for size, _, _ in blocks)
    looked = [looks(size, options.small, device, min(options.pairs, 3)) for size in sizes]
    finish(
        {
            "benchmark": "gpu",
            "matmul_flops": peak,
            "seconds": round(time.perf_counter() - began),
            "blocks": found,
            "looks": looked,
        },
        environment(device.type, precision),
    )


def _block(
    size: str,
    batch: int,
    sequence: int,
    options: argparse.Namespace,
    device: torch.device,
    peak: float,
    deadline: float,
) -> tuple[dict[str, Any], float]:
    """A block's figures, and the peak, which its steps may have raised."""
    print(f"{size}, {batch} × {sequence}", flush=True)
    steps: dict[str, Callable[[], float]] = {}
    memory: dict[str, float] = {}
    failed: dict[str, str] = {}
    flops: dict[str, float] = {}
    for name, changes in VARIANTS.items():
        if options.skip_compiled and changes.get("compile"):
            continue
        shape = {"size": size, "batch": batch, "sequence": sequence, "dropout": None}
        settings = argparse.Namespace(**{**shape, "compile": False, "checkpointing": "none", **changes})
        kind = f"{name.split(',')[0]} {options.dtype}"
        try:
            steps[name], memory[name] = _warm(kind, settings, device)
            flops[name] = KINDS[kind].flops(settings)
        except torch.OutOfMemoryError:
            failed[name] = "out of memory"
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.pairs):
        if number and time.perf_counter() > deadline:
            break
        for name, step in steps.items():
            seconds[name].append(step())
    tokens = batch * sequence
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    fastest = max((flops[name] * tokens / median for name, median in medians.items()), default=0.0)
    peak = raised_peak(peak, fastest, lambda: wider_peak(device, options.dtype))
    rows = []
    for name in VARIANTS:
        if name in failed:
            rows.append([name, *["-"] * 4, failed[name]])
        elif name in steps:
            median = medians[name]
            rows.append(
                [
                    name,
                    f"{median * 1e3:,.1f}",
                    f"{tokens / median:,.0f}",
                    f"{flops[name] * tokens / median / peak:.1%}",
                    f"{memory[name] / GIBI:.2f}" if memory[name] else "-",
                    f"{_ratio(seconds, 'baseline', name):.2f}",
                ]
            )
    table(["step", "milliseconds", "tokens/s", "MFU", "peak, GiB", "times the baseline"], rows)
    print(flush=True)
    block = {
        "size": size,
        "batch": batch,
        "sequence": sequence,
        "rounds": len(next(iter(seconds.values()), [])),
        "tokens_per_second": {name: round(tokens / median) for name, median in medians.items()},
        "mfu": {name: round(flops[name] * tokens / median / peak, 4) for name, median in medians.items()},
        "peak_gib": {name: round(value / GIBI, 3) for name, value in memory.items()},
        "speedup_vs_baseline": {
            name: round(_ratio(seconds, "baseline", name), 3) for name in seconds if "baseline" in seconds
        },
        "failed": failed,
    }
    return block, peak


def _warm(kind: str, settings: argparse.Namespace, device: torch.device) -> tuple[Callable[[], float], float]:
    """A step that has run once (kernels, the compiler, the optimizer's state), and its peak memory."""
    step = build([kind], settings, device)[kind]
    step()
    return step, _peak(step, device)


def _ratio(seconds: dict[str, list[float]], over: str, under: str) -> float:
    if over not in seconds or under not in seconds:
        return float("nan")
    return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))


def _peak(step: Callable[[], float], device: torch.device) -> float:
    """Bytes of a step above what lay there before it; 0 where the device does not count them."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return float(torch.cuda.max_memory_allocated() - before)


if __name__ == "__main__":
    main()
