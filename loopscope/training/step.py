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
from loopscope.ops.cpu_sizes import CpuSizes, use_cpu_sizes
from loopscope.ops.dispatch import cpu_ops
from loopscope.ops.step_scope import scratch_scope, step_scope
from loopscope.ops.wide_sum import USES, wide_sums
from loopscope.recurrence import AbstractLoopedLM
from loopscope.training.config import TrainingConfig
from loopscope.training.distributed.batch_share import BatchShare, own_depths
from loopscope.training.distributed.ranks import ALONE, Ranks
from loopscope.training.distributed.wrapper import AbstractWrapper, OneProcess
from loopscope.training.hardware import Precision
from loopscope.training.optim import Optimizer, clip_gradients_


class TrainingStep:
    """A model, its objective and its optimizer, ready to take batches.

    Args:
        precision: what products compute in; weights, losses and norms stay fp32.
        fuse_elementwise: whether a CPU's chains of element-wise passes are compiled (`ops.fusion`).
        ranks: processes that share every batch.
        wrapper: the model as they train it; None: as it is.
        sizes: at which a CPU's work is split.
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
        ranks: Ranks = ALONE,
        wrapper: AbstractWrapper | None = None,
        sizes: CpuSizes = CpuSizes(),  # noqa: B008 (frozen)
    ) -> None:
        self.ranks = ranks
        self.wrapper = OneProcess(model) if wrapper is None else wrapper
        self.model = model
        self.objective = objective
        self.optimizer = optimizer
        self.config = config
        self.device = device
        self.precision = precision
        self.fuse_elementwise = fuse_elementwise
        self.sizes = sizes

    def __call__(
        self, input_ids: Int[Tensor, "batch seq"], labels: Int[Tensor, "batch seq"], depths: Sequence[int]
    ) -> tuple[Loss, Float[Tensor, ""]]:
        """Take a step; returns the loss of the whole batch (detached) and the gradient's norm before clipping.

        Args:
            input_ids: of this process' rows of the batch.
            depths: loops to run: one number, or one per sequence of the whole batch.
        """
        with (
            tf32(self.device),
            cpu_ops(self.config.cpu_ops),
            use_cpu_sizes(self.sizes),
            step_scope(self.fuse_elementwise),
            wide_sums(
                max(depths) >= USES and self.device.type != "cpu"
            ),  # whose own operations do, but for biases
        ):
            loss = self._accumulate(input_ids, labels, depths)
        norm = clip_gradients_(self.model, self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss, norm

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _accumulate(self, input_ids: Tensor, labels: Tensor, depths: Sequence[int]) -> Loss:
        accumulation = self.config.accumulation
        size = len(input_ids) // accumulation
        share = BatchShare(labels, accumulation, self.ranks)
        own = own_depths(depths, self.config.batch, accumulation, self.ranks)
        parts = []
        for index, (ids, targets) in enumerate(zip(input_ids.split(size), labels.split(size), strict=True)):
            deep = own if len(own) == 1 else own[index * size : (index + 1) * size]
            with self.wrapper.part(last=index == accumulation - 1), scratch_scope():
                # One context for all loops: a weight is cast once, however often it is applied.
                with self.autocast():
                    targets = share.labels(index, targets)
                    loss = self.wrapper.loss(self._loss, ids, targets, deep, min(depths), max(depths))
                loss = share.weighed(index, loss, self.objective)
                share.whole_gradient(loss.total).backward()
            parts.append(loss.detached())
            del loss  # before the next part: its graph holds a chunk of logits
        self.wrapper.after_backward()
        return share.together(parts)

    def _loss(self, ids: Tensor, labels: Tensor, depths: Sequence[int], fewest: int, most: int) -> Loss:
        states = unroll_to(self.model, ids, depths, self.config.depth.backprop, most, fewest)
        return self.objective(states, labels)


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
