"""DDP or FSDP2: which of them a run takes, and what it cannot be trained with.

DDP keeps weights, gradients and moments whole in every process, and exchanges gradients once a step. FSDP2 keeps a
share of each and brings weights together to compute with.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from loopscope.machine_limits import machine_bytes
from loopscope.objectives.objective import Objective
from loopscope.training.config import TrainingConfig
from loopscope.training.distributed.ranks import Ranks

Strategy = Literal["one", "ddp", "fsdp"]
REPLICA_SHARE = 0.7
"""Of a process' memory, that weights, gradients and moments may take: activations and buckets need the rest."""
_NUMBER = 4
"""Bytes of a number in single precision."""


def replica_bytes(model: nn.Module, config: TrainingConfig) -> int:
    """Return bytes of what DDP keeps in every process: weights, gradients, moments."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    held = sum(parameter.numel() for parameter in model.parameters()) - trained
    moments = 1 if config.optimizer == "muon" else 2  # of Muon's matrices one, which are nearly all
    return _NUMBER * (trained * (2 + moments) + held)


def process_bytes(device: torch.device, ranks: Ranks) -> int | None:
    """Return bytes that a process has for itself: its GPU's, or its share of the machine's. None: not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    there = machine_bytes()
    return None if there is None else there // ranks.local_world


def choose_strategy(
    model: nn.Module,
    objectives: Sequence[Objective],
    config: TrainingConfig,
    device: torch.device,
    ranks: Ranks,
) -> Strategy:
    """Return how a model is trained by these processes: as `training.parallel` says, or by what fits.

    Raises:
        ValueError: FSDP2 for what it cannot train; says which setting, and what to do.
    """
    if ranks.alone:
        return "one"
    if config.parallel != "auto":
        found: Strategy = config.parallel
    else:
        there = process_bytes(device, ranks)
        found = "ddp" if there is None or replica_bytes(model, config) <= REPLICA_SHARE * there else "fsdp"
    if found == "fsdp":
        _check_fsdp(objectives, config, device)
    return found


def parallel_note(
    strategy: Strategy, model: nn.Module, config: TrainingConfig, device: torch.device, ranks: Ranks
) -> str:
    """Return what there is to say of a choice: `2 processes, DDP: …`."""
    whole, there = replica_bytes(model, config), process_bytes(device, ranks)
    each = whole if strategy == "ddp" else whole / ranks.world
    of = "" if there is None else f" of {_gigabytes(there)}"
    kept = "whole in each" if strategy == "ddp" else f"in shards ({config.fsdp_reshard})"
    asked = "fits" if strategy == "ddp" else "whole ones would not fit"
    why = f", {asked}" if config.parallel == "auto" else ""
    return (
        f"{ranks.world} processes, {'DDP' if strategy == 'ddp' else 'FSDP2'}: weights, gradients and moments {kept}, "
        f"{_gigabytes(each)}{of}{why}"
    )


def _check_fsdp(objectives: Sequence[Objective], config: TrainingConfig, device: torch.device) -> None:
    if any(extra.differentiates for objective in objectives for extra in objective.extras):
        raise ValueError(
            "objective.jacobian takes gradients inside the forward pass, which weights in shards (FSDP2) do not allow; "
            "set training.parallel: ddp"
        )
    if device.type == "cuda" and config.compile is True:
        raise ValueError(
            "training.compile is on, and layers in shards (FSDP2) are not compiled; turn it off, or set "
            "training.parallel: ddp"
        )


def _gigabytes(count: int | float) -> str:
    return f"{count / 1e9:.3g} GB"
