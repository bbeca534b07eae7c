"""How time and peak memory of a training step grow: with loops, sequence, batch and vocabulary.

    python -m benchmarks.scaling                       # width 128: about four minutes on one core
    python -m benchmarks.scaling --axes loops --points 4

One axis varies at a time around a base (K 4, 256 tokens, batch 4, vocabulary 4096). Each point is a process of its
own: peak memory above weights and optimizer state, then the fastest of a few steps. The exponent is the slope of a
straight line through logarithms, over the whole axis and over its upper half, where fixed costs weigh less: 1 is
proportional, 0 is constant.
"""

import argparse
import json
import math
from collections.abc import Sequence

import torch

from benchmarks.environment import MEBI, elsewhere, environment, finish, table
from benchmarks.steps import KINDS, build, peak_memory
from loopscope.training import resolve_device

AXES: dict[str, tuple[int, ...]] = {
    "loops": (1, 2, 4, 8, 16),
    "sequence": (128, 256, 512, 1024, 2048),
    "batch": (1, 2, 4, 8, 16),
    "vocabulary": (4096, 8192, 16384, 32768, 65536, 131072),
}
BASE = {"loops": 4, "sequence": 256, "batch": 4, "vocabulary": 4096}


def main() -> None:
    """Measure every point, print rows as they come, then exponents and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--points", type=int, help="the first so many of each axis")
    parser.add_argument("--size", default="laptop", help="whose layers, dim and heads are taken")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--checkpointing", choices=["none", "layer", "loop"], default="none")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.point:
        print(json.dumps(measure(json.loads(options.point), options)))
        return
    found: dict[str, dict[str, object]] = {}
    for axis in options.axes:
        values = AXES[axis][: options.points]
        seconds, memory = [], []
        print(f"{axis.rjust(10)}     seconds  peak, MiB")
        for value in values:
            took, peak = elsewhere("scaling", "--point", json.dumps({**BASE, axis: value}))
            seconds.append(took)
            memory.append(peak)
            print(f"{value:10}  {took:10.4f}  {peak / MEBI:9.1f}", flush=True)
        found[axis] = {
            "values": values,
            "seconds": [round(value, 4) for value in seconds],
            "peak_mib": [round(value / MEBI, 1) for value in memory],
            "time_exponent": exponent(values, seconds),
            "memory_exponent": exponent(values, memory),
            "time_exponent_upper": exponent(values[len(values) // 2 :], seconds[len(values) // 2 :]),
            "memory_exponent_upper": exponent(values[len(values) // 2 :], memory[len(values) // 2 :]),
        }
    print()
    names = ("time_exponent", "time_exponent_upper", "memory_exponent", "memory_exponent_upper")
    table(
        ["grows with", "time", "upper half", "memory", "upper half"],
        [[axis, *(f"{row[name]:.2f}" for name in names)] for axis, row in found.items()],
    )
    finish(
        {
            "benchmark": "scaling",
            "size": options.size,
            "base": BASE,
            "repeats": options.repeats,
            "checkpointing": options.checkpointing,
            "axes": found,
        },
        environment(resolve_device(options.device).type, options.dtype),
    )


def exponent(values: Sequence[float], figures: Sequence[float]) -> float:
    """Least-squares slope of log figure over log value; nan for fewer than two points or nothing to see."""
    if len(values) < 2 or min(figures) <= 0:
        return math.nan
    across, up = [math.log(value) for value in values], [math.log(figure) for figure in figures]
    middle, height = sum(across) / len(across), sum(up) / len(up)
    product = sum((x - middle) * (y - height) for x, y in zip(across, up, strict=True))
    return round(product / sum((x - middle) ** 2 for x in across), 3)


def measure(point: dict[str, int], options: argparse.Namespace) -> tuple[float, float]:
    """Seconds of the fastest step, and bytes of the peak, at one point."""
    settings = argparse.Namespace(
        **{**vars(options), **point, "dropout": None, "compile": False, "flush_denormals": False}
    )
    device = resolve_device(options.device)
    # One thread's time is the processor's, whoever else it works for.
    settings.clock = "processor" if options.threads == 1 and device.type == "cpu" else "wall"
    name = f"ours {options.dtype}"
    assert name in KINDS
    peak = peak_memory(name, settings, device)
    step = build([name], settings, device)[name]
    step()
    return min(step() for _ in range(options.repeats)), peak


if __name__ == "__main__":
    main()
