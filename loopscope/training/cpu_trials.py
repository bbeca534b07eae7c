"""Which sizes are fastest on this CPU: a few candidates timed in turn, in a process of its own.

A process of its own, because what was compiled or allocated before changes how a run computes afterwards, also in its
last bits. Of every number the one in the code is a candidate, and another has to beat it by `TRIAL_MARGIN` every time:
two tries on a busy machine then seldom differ. Sizes of attention's squares count only where they give the same bits.

    python -m loopscope.training.cpu_trials bf16 2        # number format and threads: prints what it finds as JSON
"""

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from statistics import median
from typing import TypeVar

import torch
from torch import Tensor

from loopscope.machine_limits import compiler_missing
from loopscope.objectives.linear_cross_entropy import LinearCrossEntropy
from loopscope.objectives.token_loss import CHUNK_ELEMENTS
from loopscope.ops.attention import NARROW, attention
from loopscope.ops.attention_dropout import BYTES, DropoutAttention
from loopscope.ops.cpu_sizes import CpuSizes, use_cpu_sizes
from loopscope.ops.fusion import fuse_elementwise
from loopscope.ops.step_scope import step_scope
from loopscope.ops.swiglu import silu_mul
from loopscope.training.cpu_choices import CpuChoices, today
from loopscope.training.hardware import Precision
from loopscope.training.throughput import matmul_peak

TRIAL_MARGIN = 0.03
"""Share of the time by which a candidate has to be faster than the code's own number."""
TRIAL_ROUNDS = 4
GIVEN_UP_AFTER = 120.0
"""Seconds after which trials are given up."""
LOGIT_CHUNKS = tuple(int(CHUNK_ELEMENTS * times) for times in (0.25, 0.5, 1, 2))
SQUARE_BYTES = tuple(int(BYTES * times) for times in (0.25, 0.5, 1, 2))
HEAD_CHANNELS = (32, 64)
"""Of heads that are tried in fp32: those of small models, and of most."""
_CPU = torch.device("cpu")

Clock = Callable[[], float]
Size = TypeVar("Size", int, bool)


def found_by_trials(precision: str) -> CpuChoices:
    """Return what another process finds with the threads of this one; a warning, and nothing found, where it fails."""
    command = [sys.executable, "-m", __name__, precision, str(torch.get_num_threads())]
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=GIVEN_UP_AFTER, check=True
        ).stdout
        return CpuChoices(**json.loads(said.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, TypeError) as error:
        warnings.warn(
            f"which sizes are fastest on this CPU could not be found ({type(error).__name__}: {error}); the run takes "
            "those that the code names. LOOPSCOPE_CPU_TRIALS=off asks no more",
            stacklevel=2,
        )
        return CpuChoices()


def try_all(precision: Precision, clock: Clock = time.perf_counter) -> CpuChoices:
    """Try everything in this process."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    fuses = None if compiler_missing() else fastest(_chains(dtype), False, clock)
    peak, fp32 = matmul_peak(_CPU, precision, clock=clock), matmul_peak(_CPU, "fp32", clock=clock)
    choices = CpuChoices(fuses=fuses, peak=peak, over_fp32=peak / fp32, found=today())
    with fuse_elementwise(bool(fuses)):
        logits = fastest({size: _loss(size, dtype) for size in LOGIT_CHUNKS}, CHUNK_ELEMENTS, clock)
        squares = fastest(with_same_bits(_attention(dtype), SQUARE_BYTES, BYTES), BYTES, clock)
    narrow = NARROW
    if precision == "bf16":
        wins = [
            channels for channels in HEAD_CHANNELS if fastest(_heads(channels), channels <= NARROW, clock)
        ]
        narrow = max(wins, default=0)
    return replace(
        choices,
        logits=None if logits == CHUNK_ELEMENTS else logits,
        squares=None if squares == BYTES else squares,
        narrow=None if narrow == NARROW else narrow,
    )


def fastest(ways: Mapping[Size, Callable[[], object]], usual: Size, clock: Clock) -> Size:
    """Return the way that takes least time, and beats the usual one by the margin in every round; else the usual one.

    In every round all take their turn, so that a busy moment slows all of them: by the best of a few rounds, a machine
    with neighbours finds another size at every try.
    """
    rounds = []
    for _ in range(TRIAL_ROUNDS + 1):
        taken = {}
        for size, way in ways.items():
            began = clock()
            way()
            taken[size] = clock() - began
        rounds.append({size: seconds / taken[usual] for size, seconds in taken.items()})
    warm = rounds[1:]
    winners = [size for size in ways if all(one[size] < 1 - TRIAL_MARGIN for one in warm)]
    return min(winners, key=lambda size: median(one[size] for one in warm), default=usual)


def with_same_bits(
    run: Callable[[int], tuple[Tensor, ...]], sizes: Iterable[int], usual: int
) -> dict[int, Callable[[], object]]:
    """Return those ways that give the same bits as the usual one, by size."""
    expected = run(usual)
    same = [size for size in sizes if all(map(torch.equal, run(size), expected))]
    return {size: lambda size=size: run(size) for size in same}  # type: ignore[misc]


def _chains(dtype: torch.dtype) -> dict[bool, Callable[[], object]]:
    gate, up = (_filled(2048, 2048, dtype=dtype) for _ in range(2))

    def way(on: bool) -> None:
        with fuse_elementwise(on):
            silu_mul(gate, up)

    return {on: lambda on=on: way(on) for on in (False, True)}  # type: ignore[misc]


def _loss(size: int, dtype: torch.dtype) -> Callable[[], object]:
    """A head of 20,000 entries read by 2048 tokens, both gradients."""
    features = _filled(1, 2048, 512, dtype=dtype).requires_grad_()
    matrix = _filled(20_000, 512).mul_(0.02).requires_grad_()
    labels = torch.arange(2048)[None]

    def way() -> None:
        with use_cpu_sizes(CpuSizes(logits=size)), torch.autocast("cpu", dtype, dtype == torch.bfloat16):
            run = LinearCrossEntropy(matrix, labels)
            run.add(features, 1.0)
            run.finish().backward()
        features.grad = matrix.grad = None

    return way


def _attention(dtype: torch.dtype) -> Callable[[int], tuple[Tensor, ...]]:
    """Attention with dropout of 8 × 8 heads × 256 × 64, and its gradients."""
    inputs = [_filled(8, 8, 256, 64, dtype=dtype).requires_grad_() for _ in range(3)]
    bias = torch.zeros(256, 256, dtype=dtype).masked_fill_(~torch.ones(256, 256).tril().bool(), -torch.inf)

    def way(size: int) -> tuple[Tensor, ...]:
        with use_cpu_sizes(CpuSizes(squares=size)):
            out: Tensor = DropoutAttention.apply(*inputs, bias, 0.1, True, 0)  # type: ignore[no-untyped-call]
            return out, *torch.autograd.grad(out.sum(), inputs)

    return way


def _heads(channels: int) -> dict[bool, Callable[[], object]]:
    """bf16 attention without dropout of 16 × 4 heads × 128, as it is and in fp32, and its gradients."""
    query, key, value = (
        _filled(16, 4, 128, channels, dtype=torch.bfloat16).requires_grad_() for _ in range(3)
    )

    def way(widened: bool) -> None:
        with use_cpu_sizes(CpuSizes(narrow=channels if widened else 0)), step_scope():
            torch.autograd.grad(attention(query, key, value).sum(), (query, key, value))

    return {widened: lambda widened=widened: way(widened) for widened in (False, True)}  # type: ignore[misc]


def _filled(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    print(json.dumps(asdict(try_all(sys.argv[1]))))  # type: ignore[arg-type]
