"""A tied model and untied weights do not fit, in either direction, and the tensors are named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from loopscope.interop.load import load
from loopscope.interop.model_folder import save_model
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.results.layout import MANIFEST
from loopscope.results.tied_weights import tie_problem, ties_of
from loopscope.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from loopscope.training.weights import load_weights


class OwnTies(nn.Module):
    """A model of somebody's, whose head is its embedding or is not."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        if tied:
            self.head.weight = self.embed.weight


def saved(run: Path, model: nn.Module) -> Path:
    return save_checkpoint(run, Progress(1, 1, 1.0), model, torch.optim.AdamW(model.parameters()), {})


def looped(tied: bool) -> LoopedTransformer:
    return LoopedTransformer(
        ModelConfig(dim=16, heads=2, layers=1, loops=2, vocabulary=11, sequence=8, tied=tied)
    )


def test_tied_tensors_are_stored_once_and_come_back_tied(tmp_path: Path) -> None:
    model, other = OwnTies(True), OwnTies(True)
    assert ties_of(model.state_dict()) == {"head.weight": "embed.weight"}
    assert ties_of(OwnTies(False).state_dict()) == {}
    load_checkpoint(saved(tmp_path, model), other)
    assert torch.equal(other.head.weight, model.embed.weight)
    assert other.head.weight is other.embed.weight


@pytest.mark.parametrize(
    ("tied", "said"),
    [
        (False, "has head.weight and embed.weight apart, and this model ties them; build the model untied"),
        (True, "has head.weight tied to embed.weight, and this model has them apart; build the model tied"),
    ],
)
def test_weights_that_are_not_tied_alike_are_refused_and_nothing_is_loaded(
    tmp_path: Path, tied: bool, said: str
) -> None:
    checkpoint, model = saved(tmp_path, OwnTies(tied)), OwnTies(not tied)
    before = model.embed.weight.detach().clone()
    with pytest.raises(ValueError, match=f"model.safetensors {said}"):
        load_checkpoint(checkpoint, model)
    assert torch.equal(model.embed.weight, before)


@pytest.mark.parametrize(("tied", "cure"), [(True, "set model.tied: true"), (False, "set model.tied: false")])
def test_a_head_of_its_own_is_named_wherever_weights_are_read(tmp_path: Path, tied: bool, cure: str) -> None:
    source, other = looped(tied), looped(not tied)
    checkpoint = saved(tmp_path / "run", source)
    folder = tmp_path / "model"
    save_model(source, folder, {}, {})
    (folder / MANIFEST).unlink()  # somebody changes the setting by hand
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(
        text.replace(f"tied: {str(tied).lower()}", f"tied: {str(not tied).lower()}")
    )
    calls: list[Any] = [
        lambda: load_checkpoint(checkpoint, other),
        lambda: load_weights(other, str(checkpoint)),
        lambda: load(folder),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"model.safetensors has a head .*unembedding.weight.*{cure}"):
            call()


def test_what_is_tied_alike_is_no_problem() -> None:
    names, ties = ["embed.weight"], {"head.weight": "embed.weight"}
    assert tie_problem(names, [*names, "head.weight"], ties, ties) is None
    assert tie_problem([*names, "head.weight"], [*names, "head.weight"], {}, {}) is None
