"""AdamW, its parameter groups, and the learning rate as a pure function of the step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from loopscope.training.config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Fused AdamW (one kernel for all parameters, on CPU and CUDA alike).

    `decay: matrices` leaves norms, biases, scalars and embeddings undecayed: decaying a gain or an
    embedding is a hidden penalty on scale, which is what a study of scale must not have. `published`
    decays everything, as the paper's code does.
    """
    groups = [
        {"params": parameters, "weight_decay": decay}
        for parameters, decay in _groups(model, config)
        if parameters
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def _groups(model: nn.Module, config: TrainingConfig) -> Iterable[tuple[list[nn.Parameter], float]]:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.decay == "published":
        return [(trainable, config.weight_decay)]
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    decayed = [p for p in trainable if p.ndim >= 2 and id(p) not in embeddings]
    kept = [p for p in trainable if p.ndim < 2 or id(p) in embeddings]
    return [(decayed, config.weight_decay), (kept, 0.0)]


def learning_rate(step: int, steps: int, config: TrainingConfig) -> float:
    """The rate of step `step` (0-based) of `steps`."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup) / max(1, steps - 1 - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    low = config.final_learning_rate
    return config.learning_rate * (low + (1 - low) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate without a host synchronisation."""
    for group in optimizer.param_groups:
        group["lr"] = rate
