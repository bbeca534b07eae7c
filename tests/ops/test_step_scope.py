"""Room that a step's operations share: the same within a part of its batch, given back after it."""

import weakref

import pytest
import torch
from torch import Tensor

from loopscope.config.recipes import recipe
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.objective import build_objective
from loopscope.ops import step_scope as scopes
from loopscope.ops.step_scope import scratch_buffer, scratch_scope, step_scope
from loopscope.training.optim import build_optimizer
from loopscope.training.step import TrainingStep


def test_room_is_the_same_within_a_part_and_gone_after_it() -> None:
    with step_scope():
        with scratch_scope():
            first = scratch_buffer("use", (4,), torch.float32)
            assert scratch_buffer("use", (2,), torch.float32).data_ptr() == first.data_ptr()
            of_first = weakref.ref(first._base if first._base is not None else first)
            del first
            assert of_first() is not None
        assert of_first() is None
        kept = scratch_buffer("use", (4,), torch.float32)
        with scratch_scope():
            assert scratch_buffer("use", (4,), torch.float32).data_ptr() != kept.data_ptr()
        assert scratch_buffer("use", (4,), torch.float32).data_ptr() == kept.data_ptr()


def test_outside_of_a_step_nothing_is_kept() -> None:
    with scratch_scope():
        one = scratch_buffer("use", (4,), torch.float32)
        assert scratch_buffer("use", (4,), torch.float32).data_ptr() != one.data_ptr()


def test_a_parts_room_is_not_there_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the backward pass of a part needed would lie beside what the next part's forward pass keeps."""
    over = {
        "model": {"dim": 16, "heads": 2, "vocabulary": 256, "sequence": 8, "dropout": 0.1},
        "data": {"tokenizer": {"kind": "bytes"}},
        "training": {"batch": 4, "accumulation": 2, "precision": "fp32"},
    }
    config = recipe("laptop", "dense/rmsnorm", over)
    model = LoopedTransformer(config.model).train()
    optimizer = build_optimizer(model, config.training)
    objective = build_objective(config.objective)
    step = TrainingStep(model, objective, optimizer, config.training, torch.device("cpu"), "fp32")
    rooms: list[int] = []
    loss = step.wrapper.loss

    def looked(*given: object) -> object:
        rooms.append(len(scopes._buffers.get() or {}))
        found = loss(*given)  # type: ignore[arg-type]
        rooms.append(len(scopes._buffers.get() or {}))
        return found

    monkeypatch.setattr(step.wrapper, "loss", looked)
    ids: Tensor = torch.randint(64, (4, 9))
    step(ids[:, :-1], ids[:, 1:], (4,))
    assert len(rooms) == 4
    assert rooms[0] == rooms[2] == 0
    assert rooms[1] == rooms[3] > 0
