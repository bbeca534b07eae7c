"""One optimizer step: forward and backward over the parts of a batch, clipping, the update.

Nothing here waits for the device. Memory: the activations of one part, the gradients, and what the objective keeps.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.objectives.depth import unroll_to
from loopscope.objectives.objective import Loss, Objective
from loopscope.ops.dispatch import cpu_ops
from loopscope.ops.step_scope import step_scope
from loopscope.recurrence import AbstractLoopedLM
from loopscope.training.config import TrainingConfig
from loopscope.training.hardware import Precision
from loopscope.training.optim import Optimizer, clip_gradients_


class TrainingStep:
    """A model, its objective and its optimizer, ready to take batches.

    Args:
        precision: what products compute in; weights, losses and norms stay fp32.
        fuse_elementwise: whether a CPU's chains of element-wise passes are compiled (`ops.fusion`).
    """

    def __init__(
        self,
        model: AbstractLoopedLM,
        objective: Objective,
        optimizer: Optimizer,
        config: TrainingConfig,
        device: torch.device,
        precision: Precision,
        fuse_elementwise: bool = False,
    ) -> None:
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.config = config
        self.device = device
        self.precision = precision
        self.fuse_elementwise = fuse_elementwise

    def __call__(
        self, input_ids: Int[Tensor, "batch seq"], labels: Int[Tensor, "batch seq"], depths: Sequence[int]
    ) -> tuple[Loss, Float[Tensor, ""]]:
        """Take a step; returns the loss (mean over parts, detached) and the gradient's norm before clipping.

        Args:
            depths: loops to run: one number, or one per sequence.
        """
        with tf32(self.device), cpu_ops(self.config.cpu_ops), step_scope(self.fuse_elementwise):
            loss = self._accumulate(input_ids, labels, depths)
        norm = clip_gradients_(self.model, self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss, norm

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _accumulate(self, input_ids: Tensor, labels: Tensor, depths: Sequence[int]) -> Loss:
        accumulation, backprop = self.config.accumulation, self.config.depth.backprop
        size = len(input_ids) // accumulation
        parts = []
        for index, (ids, targets) in enumerate(zip(input_ids.split(size), labels.split(size), strict=True)):
            own = depths if len(depths) == 1 else depths[index * size : (index + 1) * size]
            # One context for all loops: a weight is cast once, however often it is applied.
            with self.autocast():
                states = unroll_to(self.model, ids, own, backprop, max(depths))
                loss = self.objective(states, targets)
            (loss.total / accumulation).backward()
            parts.append(loss.detached())
            del states, loss  # before the next part: their graph holds a chunk of logits

        def mean(values: list[Tensor]) -> Tensor:
            return torch.stack([value.detach() for value in values]).mean(dim=0)

        return Loss(
            total=mean([part.total for part in parts]),
            terms={name: mean([part.terms[name] for part in parts]) for name in parts[0].terms},
            cross_entropy=mean([part.cross_entropy for part in parts]),
            l2_norm=mean([part.l2_norm for part in parts]),
            mean_square=mean([part.mean_square for part in parts]),
            dim=parts[0].dim,
        )


@contextmanager
def tf32(device: torch.device) -> Iterator[None]:
    """On CUDA, fp32 products in TF32 inside; outside (audits, the monitor) as they were.

    TF32 keeps fp32's range and 10 bits of mantissa: what is left in fp32 beside bf16 is exact enough in it.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
