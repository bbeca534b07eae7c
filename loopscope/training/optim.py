"""AdamW (or Muon with AdamW), parameter groups, and the learning rate as a pure function of the step."""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from loopscope.training.config import TrainingConfig
from loopscope.training.muon import MuonWithAdamW, layer_matrices

Optimizer = torch.optim.AdamW | MuonWithAdamW


def build_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """Build the optimizer a config names: fused AdamW, for all parameters or for those that Muon leaves.

    `decay: matrices` leaves norms, biases, scalars and embeddings undecayed: decaying a gain or an
    embedding is a hidden penalty on scale, which is what a study of scale must not have. `published`
    decays everything, as the paper's code does.
    """
    matrices = list(layer_matrices(model)) if config.optimizer == "muon" else []
    if config.optimizer == "muon" and not matrices:
        raise ValueError("optimizer 'muon' found no matrices inside module lists in this model; use adamw")
    taken = {id(parameter) for parameter in matrices}
    groups = [
        {"params": kept, "weight_decay": decay}
        for parameters, decay in _groups(model, config)
        if (kept := [parameter for parameter in parameters if id(parameter) not in taken])
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    if not matrices:
        return adamw
    muon = torch.optim.Muon(
        matrices, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return MuonWithAdamW(muon, adamw)


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


def clip_gradients_(model: nn.Module, most: float) -> Float[Tensor, ""]:
    """Shrink a model's gradients to a norm of `most`, in place; return their norm before.

    On a CPU norms are taken row by row: over ten million numbers at once, `vector_norm` is 4e-4 off in fp32, and
    twice as slow.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if any(isinstance(one, DTensor) for one in gradients):
        return _clip_shards_(gradients, most)
    if not gradients or any(one.device.type != "cpu" for one in gradients):
        return torch.nn.utils.clip_grad_norm_(model.parameters(), most)
    norm: Tensor = torch.linalg.vector_norm(torch.stack([_norm(one) for one in gradients]))
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), most, norm)
    return norm


def _clip_shards_(gradients: Sequence[Tensor], most: float) -> Float[Tensor, ""]:
    """Do the same for gradients in shards: every process sums its own squares, and all share one sum."""
    own = [one.to_local() if isinstance(one, DTensor) else one for one in gradients]
    square: Tensor = torch.stack([_norm(one).square() for one in own]).sum()
    dist.all_reduce(square)
    norm = square.sqrt()
    torch._foreach_mul_(own, torch.clamp(most / (norm + 1e-6), max=1.0))
    return norm


def _norm(gradient: Tensor) -> Tensor:
    if gradient.ndim > 1:
        gradient = torch.linalg.vector_norm(gradient, dim=-1)
    norm: Tensor = torch.linalg.vector_norm(gradient)
    return norm


def learning_rate(step: int, steps: int, config: TrainingConfig) -> float:
    """Return the learning rate of step `step` (0-based) of `steps`."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup) / max(1, steps - 1 - config.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    low = config.final_learning_rate
    return config.learning_rate * (low + (1 - low) * cosine)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set every group's learning rate without a host synchronisation."""
    for group in optimizer.param_groups:
        group["lr"] = rate
