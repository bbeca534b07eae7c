"""Objectives in the Hugging Face Trainer: step by step what a plain loop does, however a batch is cut into parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from loopscope.interop.huggingface.export.exported_model import LoopscopeForCausalLM, as_exported
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives import ObjectiveConfig, build_objective
from loopscope.recurrence import unroll
from loopscope.training import TrainerLoss
from tests.model.fixtures import TINY, live_model

LENGTHS = (13, 9, 13, 4, 11, 13, 6, 8)
"""Of the texts of a batch: the rest is padding."""


def texts(lengths: Sequence[int] = LENGTHS, batches: int = 2) -> list[dict[str, Tensor]]:
    """Padded texts; of the first a prompt is not counted."""
    draw, items = torch.Generator().manual_seed(0), []
    for length in [*lengths] * batches:
        ids = torch.randint(1, TINY["vocabulary"], (max(LENGTHS),), generator=draw)
        mask = (torch.arange(len(ids)) < length).long()
        labels = ids.masked_fill(mask == 0, -100)
        items.append({"input_ids": ids * mask, "attention_mask": mask, "labels": labels})
    for item in items[:: len(lengths)]:
        item["labels"][:6] = -100
    return items


def made(**settings: Any) -> LoopscopeForCausalLM:
    return as_exported(live_model("plain", exit_gate=True, dropout=0.0, **settings))


def trained(
    folder: Path,
    objective: Any = "dense",
    items: Any = None,
    parts: int = 1,
    model: Any = None,
    **more: Any,
) -> tuple[Trainer, dict[str, Tensor]]:
    model = made() if model is None else model
    loss = TrainerLoss(model, objective)
    items = texts() if items is None else items
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=8 // parts,
        gradient_accumulation_steps=parts,
        max_steps=len(items) // 8,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        optim="sgd",
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=items, compute_loss_func=loss, **more)
    trainer.train()
    return trainer, dict(model.named_parameters())


def losses(trainer: Trainer) -> list[tuple[float, float]]:
    return [(e["loss"], float(e["grad_norm"])) for e in trainer.state.log_history if "loss" in e]


def plain_loop(objective: Any, items: list[dict[str, Tensor]]) -> tuple[list[float], LoopedTransformer]:
    """Texts without padding, one by one, by nothing but `unroll` and the objective."""
    looped: Any = made().train().model
    optimizer = torch.optim.SGD(looped.parameters(), lr=1e-2)
    found = []
    for start in range(0, len(items), 8):
        batch = items[start : start + 8]
        total = sum(int((item["labels"][1:] != -100).sum()) for item in batch)
        whole = 0.0
        for item in batch:
            length = int(item["attention_mask"].sum())
            ids, labels = item["input_ids"][None, :length], item["labels"][None, :length]
            counted = labels[:, 1:] != -100
            loss = objective(unroll(looped, ids[:, :-1]), labels[:, 1:], counted).total
            (share := loss * counted.sum() / total).backward()
            whole += share.item()
        torch.nn.utils.clip_grad_norm_(looped.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(whole)
    return found, looped


OBJECTIVES = {
    "dense+norm_penalty=0.5": {"placement": "dense", "norm_penalty": 0.5},
    "terminal": {"placement": "terminal"},
    "exit-weighted": {"placement": "exit-weighted"},
}


@pytest.mark.parametrize("word", OBJECTIVES)
def test_every_step_is_that_of_a_plain_loop_however_a_batch_is_cut(word: str, tmp_path: Path) -> None:
    items = texts()
    expected, looped = plain_loop(build_objective(ObjectiveConfig(**OBJECTIVES[word])), items)  # type: ignore[arg-type]
    whole, weights = trained(tmp_path, word, items)
    cut, cut_weights = trained(tmp_path, word, items, parts=4)
    # The Trainer rounds what it logs to four digits.
    assert [loss for loss, _ in losses(whole)] == pytest.approx(expected, abs=1e-4)
    for one, other in zip(losses(whole), losses(cut), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    own = dict(looped.named_parameters())
    moved = 0.0
    for name, weight in weights.items():
        torch.testing.assert_close(cut_weights[name], weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(own[name.removeprefix("model.")], weight, rtol=1e-5, atol=1e-6)
        moved += (weight - dict(made().named_parameters())[name]).abs().sum().item()
    assert moved > 0.1
