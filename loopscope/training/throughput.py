"""How fast a run computes: FLOP/s achieved, and their share of what the machine's matrix products reach (MFU)."""

import time
from collections.abc import Callable

import torch

from loopscope.guards import wait
from loopscope.training.hardware import Precision

FlopsPerToken = Callable[[int], float]
"""FLOPs per token of a training step that runs so many loops, as `plan.flops` counts them."""

SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the square matrices whose product is timed: large enough for the peak. In bf16 with AMX on two cores, 2048 reaches
1.7 times what 1024 does."""

LONGEST = 0.5
"""Seconds after which no further product is timed."""


def matmul_peak(
    device: torch.device,
    precision: Precision,
    repeats: int = 6,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measure the FLOP/s of the best of a few products of square matrices, with the threads that are set.

    A measure of this machine at this moment: it draws no random numbers and keeps no memory.

    Args:
        clock: seconds; the processor's where others work beside it.
    """
    side = SIDE.get(device.type, 2048)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.full((side, side), 0.5, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    start = clock()
    for number in range(repeats + 1):  # the first one warms up, and is never the best
        if number > 1 and clock() - start > LONGEST:
            break
        wait(device)
        began = clock()
        torch.mm(left, right)
        wait(device)
        best = min(best, clock() - began)
    return 2 * side**3 / best


class Speedometer:
    """FLOP/s of training: sums up what the steps since the last reading have computed.

    Args:
        flops_per_token: None where a model's cost is not known: nothing is shown then.
        peak: FLOP/s of the machine, or None.
    """

    def __init__(self, flops_per_token: FlopsPerToken | None, peak: float | None = None) -> None:
        self.flops_per_token = flops_per_token
        self.peak = peak
        self.flops = 0.0

    def see(self, tokens: int, loops: int) -> None:
        """Count a step over so many tokens that ran so many loops."""
        if self.flops_per_token is not None:
            self.flops += tokens * self.flops_per_token(loops)

    def read(self, seconds: float) -> dict[str, float]:
        """Return `flops_per_second` and `mfu` since the last reading, as far as they are known."""
        done, self.flops = self.flops, 0.0
        if self.flops_per_token is None or seconds <= 0:
            return {}
        figures = {"flops_per_second": done / seconds}
        if self.peak is not None:
            figures["mfu"] = done / seconds / self.peak
        return figures
