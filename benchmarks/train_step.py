"""A training step beside the one that a good engineer writes: time, memory, precision, what dense supervision costs.

    python -m benchmarks.train_step                               # 44M, 8 × 256: about 12 minutes on two cores
    python -m benchmarks.train_step --kinds ours,baseline --dtype bf16
    python -m benchmarks.train_step --kinds ours --against fa50153      # and the same step of an earlier state
    python -m benchmarks.train_step --size laptop --batch 16 --threads 1

Every round takes one step of each kind in turn, so that a busy machine slows all of them:

    ours       the step that training takes (`training.step`), dense
    tuned      ours, with the sizes that trials find on this CPU (`training.cpu_trials`); not by default
    baseline   `benchmarks.baseline`: fused attention, PyTorch's norms and losses, fused AdamW
    masked     `loopscope.model.reference`: attention as an explicit masked softmax, an optimizer that steps one
               parameter after another. Nobody trains so; it is here because figures of 2026-11-25 rest on it
    terminal   ours, with the last loop's loss alone
    unlooped   the same step of a model without loops that has loops × layers layers of its own

Figures are medians over the rounds, of ratios within a round.

On a CPU each kind lives in a process of its own, and only one works at a time: what a way pays for memory depends on
what else has grown its process's heap, and a user has one way or the other in a process, never both. Memory is the
peak of a step above weights and optimizer state, again each in its own process; looped against unlooped, with them.
MFU is the model's FLOPs (`plan.flops`) per second over the best product of large matrices, measured afterwards, and
again where a step beats it.
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch

from benchmarks.earlier_state import command_in, earlier_state
from benchmarks.environment import MEBI, again, elsewhere, environment, finish, table
from benchmarks.step_ratios import figures
from benchmarks.steps import KINDS, Kind, Step, build, peak_memory
from benchmarks.workers import serve, workers
from loopscope.config import recipe
from loopscope.training import Precision, matmul_peak, resolve_device, resolve_precision
from loopscope.training.throughput import raised_peak, wider_peak

COMPILE: dict[str, bool | str] = {"auto": "auto", "on": True, "off": False}

WHATS = tuple(dict.fromkeys(kind.what for kind in KINDS.values()))
USUAL = tuple(what for what in WHATS if what != "tuned")

WEIGHT_BYTES = 12
"""Of a parameter before a step: itself and AdamW's two averages, in fp32."""


def main() -> None:
    """Time rounds of steps, measure memory, print rows as they come, end with one line of JSON."""
    options = _options()
    device = resolve_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.set_flush_denormal(options.flush_denormals)
    if options.memory_of:
        print(peak_memory(options.memory_of, options, device))
        return
    if options.serve:
        serve(lambda: build([options.serve], options, device)[options.serve])
        return
    own = resolve_precision("auto", device)
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if options.dtype == "both" else (options.dtype,)
    main_one = own if own in precisions else precisions[0]
    wanted = options.kinds.split(",")
    chosen = [
        name for name, kind in KINDS.items() if kind.what in wanted and _wanted(kind, precisions, main_one)
    ]
    apart = device.type == "cpu"
    tokens = options.batch * (options.sequence or recipe(options.size).model.sequence)
    groups = []
    for names in _groups(chosen) if apart else [chosen]:
        with _apart(names, options) if apart else _together(names, options, device) as steps:
            groups.append(_rounds(steps, options.pairs))
        del steps
    seconds = {name: next(group[name] for group in groups if name in group) for name in chosen}
    before = {
        dtype: [b / o for b, o in zip(group[f"before {dtype}"], group[f"ours {dtype}"], strict=True)]
        for group in groups
        for dtype in precisions
        if f"before {dtype}" in group
    }
    flops = {name: KINDS[name].flops(options) for name in chosen}
    speeds = {name: flops[name] * tokens / statistics.median(s) for name, s in seconds.items()}
    peaks = {precision: _peak(precision, device, speeds) for precision in precisions}
    memory = {}
    if not options.skip_memory:
        memory = {name: elsewhere("train_step", "--memory-of", name) for name in chosen}
    print()
    _show(chosen, seconds, memory, speeds, peaks, tokens)
    weights = {name: WEIGHT_BYTES * KINDS[name].parameters(options) for name in chosen}
    found = figures(groups, memory, flops, weights, precisions, main_one)
    mfu = {name: round(speed / peaks[KINDS[name].precision], 3) for name, speed in speeds.items()}
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
            "mfu_by_dtype": {dtype: mfu[f"ours {dtype}"] for dtype in precisions if f"ours {dtype}" in mfu},
            "mfu": mfu,
            "times_the_speed_of_before": {
                dtype: [round(statistics.median(found), 3), round(min(found), 3), round(max(found), 3)]
                for dtype, found in before.items()
            },
            "tokens_per_second": {name: round(tokens / statistics.median(s)) for name, s in seconds.items()},
            "seconds": {name: [round(one, 3) for one in s] for name, s in seconds.items()},
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
    return [wide, [*(name for name in wide if name == "ours fp32"), *narrow]]


@contextmanager
def _apart(chosen: Sequence[str], options: argparse.Namespace) -> Iterator[dict[str, Step]]:
    commands = {name: again("train_step", "--serve", name) for name in chosen}
    with ExitStack() as stack:
        if options.against:
            tree = stack.enter_context(earlier_state(options.against))
            words = [f"--size={options.size}", f"--batch={options.batch}", f"--threads={options.threads}"]
            words += [
                f"--{name}={value}" for name in ("sequence", "dropout") if (value := vars(options)[name])
            ]
            for name in chosen:
                if KINDS[name].what == "ours":
                    there = command_in(tree, "train_step", ["--serve", name, *words])
                    commands[name.replace("ours", "before")] = there
        yield stack.enter_context(workers(commands))


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


def _peak(precision: Precision, device: torch.device, speeds: Mapping[str, float]) -> float:
    """The best product, measured again where a step beats it."""
    own = [speed for name, speed in speeds.items() if KINDS[name].precision == precision]
    return raised_peak(
        matmul_peak(device, precision), max(own, default=0.0), lambda: wider_peak(device, precision)
    )


def _show(
    chosen: Sequence[str],
    seconds: Mapping[str, Sequence[float]],
    memory: Mapping[str, float],
    speeds: Mapping[str, float],
    peaks: Mapping[Precision, float],
    tokens: int,
) -> None:
    rows = []
    for name in chosen:
        median = statistics.median(seconds[name])
        rows.append(
            [
                name,
                f"{median:.3f}",
                f"{tokens / median:,.0f}",
                f"{speeds[name] / 1e9:,.0f}",
                f"{speeds[name] / peaks[KINDS[name].precision]:.0%}",
                f"{memory[name] / MEBI:,.0f}" if name in memory else "-",
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
    parser.add_argument("--kinds", default=",".join(USUAL), help=f"of {', '.join(WHATS)}, between commas")
    parser.add_argument(
        "--against", metavar="COMMIT", help="on a CPU: our step of an earlier state beside it"
    )
    parser.add_argument("--skip-memory", action="store_true", help="time alone")
    parser.add_argument("--flush-denormals", action="store_true", help="on both sides; PyTorch keeps them")
    parser.add_argument("--memory-of", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--serve", choices=list(KINDS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.compile = COMPILE[options.compile]
    if unknown := [what for what in options.kinds.split(",") if what not in WHATS]:
        parser.error(f"--kinds names {', '.join(unknown)}; there are {', '.join(WHATS)}")
    if options.pairs < 1:
        parser.error(f"--pairs is {options.pairs}; give 1 or more (5 for figures to publish)")
    return options


if __name__ == "__main__":
    main()
