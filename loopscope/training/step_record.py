"""What is kept and shown of one training step: a record in the metrics, and a line of figures."""

import math
from collections.abc import Mapping

from torch import Tensor

from loopscope.objectives.objective import Loss
from loopscope.training.checkpoint import Progress
from loopscope.training.metrics import MetricsLog
from loopscope.training.optim import Optimizer
from loopscope.training.progress import ProgressDisplay


def log_step(
    log: MetricsLog,
    display: ProgressDisplay,
    step: int,
    loss: Loss,
    gradient_norm: Tensor,
    optimizer: Optimizer,
    progress: Progress,
    speed: Mapping[str, float],
    loops: int,
) -> None:
    """One record. Per-loop figures are those of the trained depth's loops: null where a step ran fewer."""
    ran = len(loss.l2_norm)
    total = float(loss.total)
    norms, scales, entropies = (
        (figures.tolist() + [math.nan] * (loops - ran))[:loops]
        for figures in (loss.l2_norm, loss.rms, loss.cross_entropy)
    )
    depth = {} if ran == loops else {"loops": ran}
    log.write(
        "train",
        step,
        loss=total,
        terms={name: float(term) for name, term in loss.terms.items()},
        cross_entropy=entropies,
        l2_norm=norms,
        gradient_norm=float(gradient_norm),
        learning_rate=optimizer.param_groups[0]["lr"],
        tokens=progress.tokens,
        seconds=progress.seconds,
        **speed,
        **depth,
    )
    display.figures(step, total, scales, speed)
