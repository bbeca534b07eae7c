"""Curves and exits of padded batches: each window gives what its text gives alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

import loopscope
from loopscope.evaluation import build_rule, depth_curves, early_exit, record_exits
from loopscope.evaluation.exits.curves import exit_curve
from loopscope.generation.padding import pad
from loopscope.recurrence import AbstractLoopedLM
from tests.interop.fixtures import Injected, build
from tests.model.fixtures import live_model

TEXTS = [[3, 1, 4, 1, 5, 9], [2, 6, 5], [7, 7, 7, 8, 2], [9, 8, 1]]
MODELS = {
    "own": lambda: live_model("huginn"),
    "depth-conditioned": lambda: live_model("loopformer"),
    "wrapped": lambda: loopscope.wrap(build(Injected), "layers", set_loops="loops"),
}


def padded(side: Any) -> tuple[Tensor, Tensor, Tensor]:
    ids, mask = pad(TEXTS, side)
    return ids, ids.roll(-1, 1).masked_fill(mask == 0, -100), mask


def alone() -> list[tuple[Tensor, Tensor]]:
    ids, labels, mask = padded("right")
    return [(ids[r : r + 1, :n], labels[r : r + 1, :n]) for r, n in enumerate(mask.sum(dim=1).tolist())]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_curve_of_padded_windows_is_that_of_the_texts(name: str, side: str) -> None:
    model = MODELS[name]()
    ids, labels, mask = padded("right")
    if side == "left":
        ids, labels = (
            torch.stack([r.roll(int((m == 0).sum())) for r, m in zip(x, mask, strict=True)])
            for x in (ids, labels)
        )
        mask = mask.flip(1)
    together = depth_curves(model, [(ids, labels, mask)], 4.0, 4)
    apart = depth_curves(model, alone(), 4.0, 4)
    for one, other in zip(together, apart, strict=True):
        assert one.window_labels == other.window_labels
        for mine, theirs in zip(one.per_loop, other.per_loop, strict=True):
            for name in ("loss", "perplexity", "bits_per_byte", "l2_norm", "rms", "accuracy"):
                assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-4), name
        for mine, theirs in zip(one.window_loss, other.window_loss, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("rule", ["direction-step", "logit-margin", "shortlist-margin"])
def test_exits_of_padded_windows_are_those_of_the_texts(rule: str) -> None:
    model = live_model("plain")
    ids, labels, mask = padded("left")
    labels = ids.roll(-1, 1)
    shifted = [(ids[r : r + 1, m == 1], labels[r : r + 1, m == 1]) for r, m in enumerate(mask)]
    rules = [build_rule(rule)]
    together = record_exits(model, [(ids, labels, mask)], rules, 4.0)
    own = [record_exits(model, [batch], rules, 4.0) for batch in shifted]
    units = together.units(rules[0], "sequence")
    for row, record in enumerate(own):
        mine = record.units(rules[0], "sequence")
        assert torch.allclose(units.losses[:, row], mine.losses[:, 0], rtol=1e-4)
        assert torch.allclose(units.scores[:, row], mine.scores[:, 0], rtol=1e-4)
    if "token" in rules[0].units:
        tokens = together.units(rules[0], "token")
        assert len(tokens.counts) == sum(map(len, TEXTS))
        assert exit_curve(together, rules[0], "token").points
    assert together.part(torch.tensor([1, 3])).tokens.sum() == 6


@pytest.mark.parametrize("name", ["own", "wrapped"])
def test_early_exits_of_padded_sequences_are_those_of_the_texts(name: str) -> None:
    model: AbstractLoopedLM = MODELS[name]()
    ids, _, mask = padded("right")
    rule = build_rule("direction-step")
    own = [early_exit(model, batch, rule, 0.4) for batch, _ in alone()]
    left = early_exit(model, ids, rule, 0.4, attention_mask=mask)
    assert left.loops.tolist() == [int(exits.loops) for exits in own]
    for row, exits in enumerate(own):
        assert torch.allclose(left.logits[row, mask[row] == 1], exits.logits[0], atol=1e-4)
        assert not left.logits[row, mask[row] == 0].any()


def test_masks_that_do_not_fit_are_refused() -> None:
    ids, labels, _ = padded("right")
    for measure in (
        lambda mask: depth_curves(live_model("plain"), [(ids, labels, mask)], 4.0),
        lambda mask: record_exits(live_model("plain"), [(ids, labels, mask)], [], 4.0),
        lambda mask: early_exit(live_model("plain"), ids, build_rule("fixed"), 2, attention_mask=mask),
    ):
        with pytest.raises(ValueError, match="attention_mask is a Tensor of shape"):
            measure(torch.ones(2, 2))
