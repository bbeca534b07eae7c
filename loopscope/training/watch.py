"""Notices the first step that is not finite, without waiting for the device in every step."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loopscope.objectives.objective import Loss
from loopscope.results import Failure


class FiniteWatch:
    """Keeps, on the device, the figures of the first step whose loss or gradient was not finite.

    `see` costs a handful of tiny kernels and no synchronisation; `failure` reads the answer and is
    called where something is logged or saved anyway, so that nothing bad is ever saved.
    """

    def __init__(self, read: list[bool], device: torch.device) -> None:
        loops = len(read)
        self.read: Bool[Tensor, " loops"] = torch.tensor(read, device=device)
        self.step = torch.zeros((), dtype=torch.int64, device=device)  # 0: all well so far
        self.norms = torch.zeros(loops, device=device)
        self.good = torch.ones(loops, dtype=torch.bool, device=device)

    def see(self, step: int, loss: Loss, gradient_norm: Float[Tensor, ""]) -> None:
        """Look at one step (1-based)."""
        bad = ~(torch.isfinite(loss.total.detach()) & torch.isfinite(gradient_norm))
        first = bad & (self.step == 0)
        finite = torch.isfinite(loss.l2_norm) & (torch.isfinite(loss.cross_entropy) | ~self.read)
        self.step = torch.where(first, step, self.step)
        self.norms = torch.where(first, loss.l2_norm, self.norms)
        self.good = torch.where(first, finite, self.good)

    def failure(self) -> Failure | None:
        """What went wrong first, or None. Waits for the device."""
        step = int(self.step)
        if step == 0:
            return None
        bad_loops = (~self.good).nonzero().flatten().tolist()
        loop = bad_loops[0] + 1 if bad_loops else None
        where = f"at loop {loop}" if loop else "in the gradient"
        norms = tuple(self.norms.tolist())
        scales = ", ".join(f"{norm:.4g}" for norm in norms)
        return Failure(
            message=f"the loss was not finite at step {step}, first {where} (L2 norms by loop: {scales})",
            step=step,
            loop=loop,
            l2_norm=norms,
        )
