"""How fast a run computes: FLOP/s achieved, and their share of what the machine's matrix products reach (MFU)."""

import time
from collections.abc import Callable, Sequence

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

WIDER = ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 0.25, 4.0), (4.0, 0.25, 1.0))
"""Rows, inner and columns (in sides) of products that are timed when a step has beaten the peak."""


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
    return _best_of(WIDER[:1], device, precision, repeats, clock)


def wider_peak(
    device: torch.device, precision: Precision, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Measure the FLOP/s of the best product of several shapes: some seconds, for a peak that a step has beaten.

    The first measurement is half a second long: where others worked in it, it is too low for hours.
    """
    return _best_of(WIDER, device, precision, 6, clock)


def raised_peak(peak: float, reached: float, measure: Callable[[], float]) -> float:
    """Return a peak that nothing beats: the one given, or where a step has reached more, what is measured now.

    No step computes faster than the machine multiplies: a share above 100 % says that the peak was measured badly. What
    the step itself has reached is the least that the machine can do.

    Args:
        measure: FLOP/s of the best product, measured anew; called only where the step has beaten the peak.
    """
    return peak if reached <= peak else max(peak, measure(), reached)


def _best_of(
    shapes: Sequence[tuple[float, float, float]],
    device: torch.device,
    precision: Precision,
    repeats: int,
    clock: Callable[[], float],
) -> float:
    side = SIDE.get(device.type, 2048)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for shape in shapes:
        rows, inner, columns = (max(1, int(side * times)) for times in shape)
        left, right = (
            torch.full(sides, 0.5, device=device, dtype=dtype) for sides in ((rows, inner), (inner, columns))
        )
        # The same room every time: the kernel clears new pages.
        out = torch.empty(rows, columns, device=device, dtype=dtype)
        fastest = float("inf")
        start = clock()
        for number in range(repeats + 1):  # the first one warms up, and is never the best
            if number > 1 and clock() - start > LONGEST:
                break
            wait(device)
            began = clock()
            torch.mm(left, right, out=out)
            wait(device)
            fastest = min(fastest, clock() - began)
        best = max(best, 2 * rows * inner * columns / fastest)
    return best


class Speedometer:
    """FLOP/s of training: sums up what the steps since the last reading have computed.

    Args:
        flops_per_token: None where a model's cost is not known: nothing is shown then.
        peak: FLOP/s of the machine, or None.
        measure: them again, where a step beats them; None: what the step has reached is then the peak.
    """

    def __init__(
        self,
        flops_per_token: FlopsPerToken | None,
        peak: float | None = None,
        measure: Callable[[], float] | None = None,
    ) -> None:
        self.flops_per_token = flops_per_token
        self.peak = peak
        self.measure = measure
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
        reached = done / seconds
        figures = {"flops_per_second": reached}
        if self.peak is not None:
            self.peak = raised_peak(self.peak, reached, self.measure or (lambda: reached))
            figures["mfu"] = reached / self.peak
        return figures
