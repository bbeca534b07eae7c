"""Objectives in the Hugging Face Trainer: step by step what a plain loop does, however a batch is cut into parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer

import loopscope
from loopscope.interop.huggingface.export.exported_model import LoopscopeForCausalLM, as_exported
from loopscope.model.looped import LoopedTransformer
from loopscope.monitor import ScaleMonitor, ScaleMonitorCallback
from loopscope.objectives import ObjectiveConfig, build_objective
from loopscope.recurrence import unroll
from loopscope.training import TrainerLoss
from tests.interop.huggingface.export.fixtures import standalone
from tests.model.fixtures import TINY, live_model
from tests.training.fixtures import trainer_arguments

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
    loss: Any = None,
    label_smoothing_factor: float = 0.0,
    **more: Any,
) -> tuple[Trainer, dict[str, Tensor]]:
    model = made() if model is None else model
    loss = loss or TrainerLoss(model, objective)
    items = texts() if items is None else items
    arguments = trainer_arguments(
        folder,
        len(items) // 8,
        per_device_train_batch_size=8 // parts,
        gradient_accumulation_steps=parts,
        optim="sgd",
        train_sampling_strategy="sequential",
        label_smoothing_factor=label_smoothing_factor,
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


def test_a_schedule_and_a_part_without_labels(tmp_path: Path) -> None:
    """Step 1 is dense, step 2 terminal; of the first part of a batch nothing counts. Evaluation is the last loop's."""
    items = texts()
    for item in (items[0], items[1]):
        item["labels"] = torch.full_like(item["labels"], -100)
    schedule: Any = [{"until": 0.5, "placement": "dense"}, {"placement": "terminal"}]
    found = []
    for parts in (1, 4):
        model = made()
        loss = TrainerLoss(model, ObjectiveConfig(schedule=schedule))
        trainer, weights = trained(
            tmp_path, items=items, parts=parts, model=model, loss=loss, callbacks=[loss]
        )
        found.append((losses(trainer), weights))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    dense, later = losses(trained(tmp_path, "dense", items)[0])
    assert found[0][0][0] == dense
    assert found[0][0][1] != later
    trainer.args.per_device_eval_batch_size = 1
    shown = trainer.evaluate(items[2:3])["eval_loss"]
    looped: Any = model.model
    ids, labels = items[2]["input_ids"][None], items[2]["labels"][None]
    with torch.no_grad():
        expected = build_objective(ObjectiveConfig(placement="terminal"))(
            unroll(looped, ids[:, :-1]), labels[:, 1:]
        )
    assert shown == pytest.approx(expected.total.item(), abs=1e-4)


def test_losses_that_are_not_finite_are_told_once(tmp_path: Path) -> None:
    """The Trainer would log 0 in their place, and go on."""
    model = made()
    with torch.no_grad():
        model.get_input_embeddings().weight[:] = float("nan")
    loss = TrainerLoss(model)
    with pytest.warns(
        UserWarning, match="the loss was not finite by step 1, and the Trainer logs others"
    ) as caught:
        trainer, _ = trained(tmp_path, model=model, loss=loss, callbacks=[loss])
    assert len([each for each in caught if "was not finite" in str(each.message)]) == 1
    assert [value for value, _ in losses(trainer)] == [0.0, 0.0]


def test_the_monitor_judges_by_the_phase_that_is_trained(tmp_path: Path) -> None:
    """Nothing sees the scale in the first half, the penalty in the second; said once, where it changes."""
    schedule: Any = [{"until": 0.5, "placement": "dense"}, {"placement": "dense", "norm_penalty": 0.5}]
    model = made()
    loss = TrainerLoss(model, ObjectiveConfig(schedule=schedule))
    said: list[str] = []
    monitor = ScaleMonitor(loopscope.adapt(model), loss.objective, every=1, budget=None, tell=said.append)
    arguments = trainer_arguments(
        tmp_path, 4, per_device_train_batch_size=4, train_sampling_strategy="sequential"
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=texts(), compute_loss_func=loss, callbacks=[loss]
    )
    trainer.add_callback(ScaleMonitorCallback(trainer, monitor))
    trainer.train()
    assert [check.verdict for check in monitor.history] == ["blind", "blind", "visible", "visible"]
    assert [check.event == "switched" for check in monitor.history] == [False, False, True, False]
    (told,) = [text for text in said if "from here on" in text]
    assert "step 3: the loss is dense + norm_penalty from here on" in told


def test_what_cannot_be_trained_on_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model is a Linear, not an exported model"):
        TrainerLoss(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="objective 'dence'"):
        TrainerLoss(made(), "dence")
    with pytest.raises(ValueError, match="loops is 0; it must be a whole number from 1 up"):
        TrainerLoss(made(), "dense", loops=0)
    with pytest.raises(ValueError, match="needs a model with an exit gate, and this one has none"):
        TrainerLoss(as_exported(live_model("plain")), "exit-weighted")
    with pytest.raises(ValueError, match="trains the gate alone"):
        TrainerLoss(made(), ObjectiveConfig(placement="gate-improvement"))
    with pytest.raises(ValueError, match="load it without trust_remote_code"):
        TrainerLoss(standalone(live_model("plain")))
    model = made()
    smoothed = TrainerLoss(model)
    with pytest.raises(ValueError, match="label_smoothing_factor is 0.1, which the Trainer leaves out"):
        trained(tmp_path, model=model, loss=smoothed, callbacks=[smoothed], label_smoothing_factor=0.1)
    model = made().train()
    loss = TrainerLoss(model)
    batch = {name: torch.stack([item[name] for item in texts()[:4]]) for name in texts()[0]}
    with pytest.raises(ValueError, match="its forward has no logits without labels"):
        _ = model(batch["input_ids"]).logits
    with pytest.raises(ValueError, match="batches have no labels"):
        loss(model(batch["input_ids"]), None)
    model(**{**batch, "labels": None})
    with pytest.raises(
        ValueError, match="row 1 has a label that counts behind padding .place 10.: pad on the right"
    ):
        loss(None, batch["input_ids"])
    with pytest.raises(ValueError, match="was given inputs_embeds in training"):
        model(inputs_embeds=torch.zeros(1, 4, 32))
    for name in ("input_ids", "labels"):
        outside = batch | {name: batch[name].masked_fill(batch["labels"] != -100, 99)}
        with pytest.raises(
            ValueError, match=rf"{name} have 99, and the model knows ids from 0 to \d+: the tokenizer"
        ):
            model(**outside)
    ignored = batch | {
        "labels": torch.full_like(batch["labels"], -100),
        "num_items_in_batch": torch.tensor(0),
    }
    with pytest.warns(UserWarning, match="no label of a whole step counts"):
        assert model(**ignored).loss == 0
    moving = TrainerLoss(model, ObjectiveConfig(loop_weights=(1, 0, 0), final_loop_weights=(0, 0, 1)))
    model(batch["input_ids"])
    with pytest.raises(ValueError, match="compute_loss_func=loss and callbacks=.loss."):
        moving(None, batch["labels"])
