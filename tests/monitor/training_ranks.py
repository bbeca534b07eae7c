"""One process of several: a Trainer on an export, watched and not, under DDP and FSDP2. Writes what it saw.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… python training_ranks.py EXPORT OUT
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, Trainer

import loopscope
from loopscope.monitor import ScaleMonitor, ScaleMonitorCallback, ScaleWarning
from loopscope.training import TrainerLoss
from tests.training.fixtures import trainer_arguments

STEPS, BATCH = 3, 4


def items(vocabulary: int) -> list[dict[str, Tensor]]:
    """Texts of different lengths, so that two processes' shares of a batch have different numbers of labels."""
    draw, found = torch.Generator().manual_seed(0), []
    for number in range(STEPS * BATCH):
        ids = torch.randint(1, vocabulary, (12,), generator=draw)
        labels = ids.clone()
        labels[12 - number % 5 :] = -100
        found.append({"input_ids": ids, "labels": labels})
    return found


def trained(model: Any, folder: Path, watched: bool) -> dict[str, Any]:
    """What a training showed: losses, norms of gradients, weights, checks, and what was said."""
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    arguments = trainer_arguments(
        folder,
        STEPS,
        per_device_train_batch_size=BATCH // 2 // ranks,
        gradient_accumulation_steps=2,
        optim="sgd",
        train_sampling_strategy="sequential",
    )
    loss = TrainerLoss(model, "dense")
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=items(model.config.vocab_size),
        compute_loss_func=loss,
    )
    monitor = ScaleMonitor(loopscope.adapt(model), "dense", every=1, budget=None)
    if watched:
        trainer.add_callback(ScaleMonitorCallback(trainer, monitor))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    weights = {
        name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().double()
        for name, weight in model.named_parameters()
    }
    return {
        "sharded": isinstance(next(model.parameters()), DTensor),
        "losses": [(e["loss"], float(e["grad_norm"])) for e in trainer.state.log_history if "loss" in e],
        "weights": {name: weight.flatten().tolist() for name, weight in weights.items()},
        "checks": [(check.rms, check.carry, check.exposure, check.verdict) for check in monitor.history],
        "said": [str(each.message) for each in caught if issubclass(each.category, ScaleWarning)],
    }


def main(export: Path, out: Path) -> None:
    from transformers.distributed import DistributedConfig

    torch.set_num_threads(1)
    sharding = DistributedConfig(fsdp_size=2, fsdp_plan={"model.layers.*": "free_full_weight"})
    found = {}
    for name, how in (("ddp", {}), ("fsdp", {"distributed_config": sharding})):
        for watched in (False, True):
            model = AutoModelForCausalLM.from_pretrained(export, **how)
            found[f"{name} watched" if watched else name] = trained(model, out, watched)
    (out / f"rank{os.environ['RANK']}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
