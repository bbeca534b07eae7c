"""Notices the first step that is not finite, without waiting for the device in every step."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from loopscope.objectives.objective import Loss
from loopscope.results import Failure


class FiniteWatch:
    """Keeps, on the device, the figures of the first step whose loss or gradient was not finite.

    `see` costs a handful of tiny kernels and no synchronisation; `failure` reads the answer and is
    called where something is logged or saved anyway, so that nothing bad is ever saved.
    """

    def __init__(self, reads: Callable[[int, int], bool], device: torch.device) -> None:
        """
        Args:
            reads: whether the loss reads loop k of an unroll of K, so that its cross-entropy must be finite.
        """
        self.reads = reads
        self.device = device
        self.read: dict[int, Bool[Tensor, " loops"]] = {}  # by depth: steps may differ in it
        self.step = torch.zeros((), dtype=torch.int64, device=device)  # 0: all well so far
        self.depth = torch.zeros((), dtype=torch.int64, device=device)
        self.norms = torch.zeros(0, device=device)
        self.good = torch.ones(0, dtype=torch.bool, device=device)

    def read_by(self, reads: Callable[[int, int], bool]) -> None:
        """Go by what another loss reads, from here on."""
        self.reads, self.read = reads, {}

    def see(self, step: int, loss: Loss, gradient_norm: Float[Tensor, ""]) -> None:
        """Take the figures of one step (1-based), without waiting for the device."""
        bad = ~(torch.isfinite(loss.total.detach()) & torch.isfinite(gradient_norm))
        first = bad & (self.step == 0)
        depth = len(loss.l2_norm)
        if depth not in self.read:
            read = [self.reads(loop, depth) for loop in range(1, depth + 1)]
            self.read[depth] = torch.tensor(read, device=self.device)
        finite = torch.isfinite(loss.l2_norm) & (torch.isfinite(loss.cross_entropy) | ~self.read[depth])
        size = max(depth, len(self.norms))
        self.step = torch.where(first, step, self.step)
        self.depth = torch.where(first, depth, self.depth)
        self.norms = torch.where(first, _padded(loss.l2_norm, size), _padded(self.norms, size))
        self.good = torch.where(first, _padded(finite, size), _padded(self.good, size))

    def failure(self) -> Failure | None:
        """Return what went wrong first, or None. Waits for the device."""
        step = int(self.step)
        if step == 0:
            return None
        depth = int(self.depth)
        bad_loops = (~self.good[:depth]).nonzero().flatten().tolist()
        loop = bad_loops[0] + 1 if bad_loops else None
        where = f"at loop {loop}" if loop else "in the gradient"
        norms = tuple(self.norms[:depth].tolist())
        scales = ", ".join(f"{norm:.4g}" for norm in norms)
        return Failure(
            message=f"the loss was not finite at step {step}, first {where} (L2 norms by loop: {scales})",
            step=step,
            loop=loop,
            l2_norm=norms,
        )


def _padded(values: Tensor, size: int) -> Tensor:
    return F.pad(values, (0, size - len(values)))
