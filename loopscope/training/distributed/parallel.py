"""From a model and its optimizer, whole in every process, to what the processes train together."""

from collections.abc import Sequence

import torch

from loopscope.objectives.objective import Objective
from loopscope.recurrence import AbstractLoopedLM
from loopscope.training.config import TrainingConfig
from loopscope.training.distributed.ranks import Ranks
from loopscope.training.distributed.strategy import Strategy
from loopscope.training.distributed.wrapper import AbstractWrapper, OneProcess
from loopscope.training.optim import Optimizer, build_optimizer
from loopscope.training.prefetch import TrainingWindows


def parallelize(
    strategy: Strategy,
    model: AbstractLoopedLM,
    optimizer: Optimizer,
    objectives: Sequence[Objective],
    config: TrainingConfig,
    device: torch.device,
    ranks: Ranks,
    windows: TrainingWindows,
) -> tuple[AbstractWrapper, Optimizer]:
    """Return a model as these processes train it, and its optimizer, which may be another one in the same state.

    Every process comes with the same weights and the same state, and all call it at once.

    Args:
        model: on `device`; for FSDP2, which moves it there in shards, anywhere.
        objectives: all that it will be trained on.
        windows: what it will be trained on.
    """
    for objective in objectives:
        for extra in objective.extras:
            extra.agree = ranks.told
    if strategy == "ddp":
        from loopscope.training.distributed.ddp import DDPWrapper, leaves_unused

        example = windows.batch(config.seed, 0, 0, 1)
        unused = leaves_unused(model, objectives, config, *(part.to(device) for part in example))
        return DDPWrapper(model, device, unused), optimizer
    if strategy == "fsdp":
        from loopscope.training.distributed.fsdp import FSDPWrapper, shard_states, states_by_name

        kept = states_by_name(optimizer, model)
        wrapper = FSDPWrapper(model, device, ranks, config.fsdp_reshard)
        optimizer = build_optimizer(model, config)
        shard_states(kept, optimizer, model)
        return wrapper, optimizer
    return OneProcess(model), optimizer
