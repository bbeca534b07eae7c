"""Depth curves against the published code's numbers, a slow obvious reference, and training's own validation."""

import json
import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from loopscope.evaluation.depth import token_scores as scores_module
from loopscope.evaluation.depth.curve import depth_curves
from loopscope.evaluation.depth.token_scores import token_scores
from loopscope.interop.published import read_published
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.numerics import powers_of
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll
from loopscope.results import DepthCurve
from loopscope.training.validation import validate
from tests.fixtures import PUBLISHED
from tests.model.fixtures import TINY, VARIANTS


def build(**settings: Any) -> LoopedTransformer:
    """A tiny model, moved away from starts that make its loops alike (a modulation starts at zero)."""
    torch.manual_seed(0)
    model = LoopedTransformer(ModelConfig(**{**TINY, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def text(windows: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(61, (windows, 17), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:].clone()


def reference(model: AbstractLoopedLM, ids: Tensor, labels: Tensor, depth: int) -> list[dict[str, Any]]:
    """The obvious way: a whole unroll per depth, window by window, with all logits."""
    rows = []
    for loops in range(1, depth + 1):
        with torch.no_grad():
            states = [list(unroll(model, row[None], loops))[-1] for row in ids]
            logits = torch.cat([state.logits() for state in states])
            hidden = torch.cat([state.hidden for state in states])
        counts = labels != -100
        loss = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        right = (logits.argmax(dim=-1) == labels) | ~counts
        rows.append(
            {
                "loss": float(loss.double().sum() / counts.sum()),
                "accuracy": float(((logits.argmax(dim=-1) == labels) & counts).sum() / counts.sum()),
                "exact_match": float(right.all(dim=1).double().mean()) if not counts.all() else None,
                "l2_norm": float(hidden.norm(dim=-1).double().mean()),
                "rms": float(hidden.square().mean(dim=-1).sqrt().double().mean()),
                "window_loss": (loss.double().sum(dim=1) / counts.sum(dim=1)).tolist(),
            }
        )
    return rows


def agrees(curve: DepthCurve, expected: list[dict[str, Any]]) -> None:
    assert [entry.loop for entry in curve.per_loop] == list(range(1, len(expected) + 1))
    for entry, windows, row in zip(curve.per_loop, curve.window_loss, expected, strict=True):
        for name in ("loss", "accuracy", "exact_match", "l2_norm", "rms"):
            assert getattr(entry, name) == (row[name] and pytest.approx(row[name], rel=1e-5)), name
        assert windows == pytest.approx(row["window_loss"], rel=1e-5)
        assert entry.perplexity == pytest.approx(math.exp(row["loss"]), rel=1e-5)
        assert entry.bits_per_byte == pytest.approx(row["loss"] / math.log(2) / 3.5, rel=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_code_at_every_depth(fixtures: Path, name: str) -> None:
    model = read_published(fixtures / name / "last.pt").model
    tensors = load_file(fixtures / name / "expected.safetensors")
    expected = json.loads((fixtures / name / "expected.json").read_text())["ce_when_run_at_depth"]
    batches = [(tensors["input_ids"], tensors["labels"])]
    curve, *others = depth_curves(model, batches, bytes_per_token=4.0)
    assert len(curve.per_loop) == len(expected) == 2 * model.loops
    for entry in curve.per_loop:
        assert entry.loss == pytest.approx(expected[str(entry.loop)], rel=1e-4)
    assert [other.reading for other in others] == (["as trained"] if name == "dense_final_only" else [])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_against_one_unroll_per_depth(name: str) -> None:
    model = build(**VARIANTS[name])
    ids, labels = text(windows=2)
    labels[0, :5] = -100
    curve, *others = depth_curves(model, [(ids[:1], labels[:1]), (ids[1:], labels[1:])], 3.5, loops=5)
    assert curve.reading == "at depth"
    agrees(curve, reference(model, ids, labels, 5))
    assert bool(others) == (model.depth_conditioned or model.readout_name == "final-only")


@pytest.mark.parametrize("settings", [{"readout": "final-only"}, {"loop_embedding": "modulation"}])
@pytest.mark.parametrize("loops", [2, 3, 5])
def test_as_trained_are_the_exits_of_the_trained_unroll(settings: dict[str, Any], loops: int) -> None:
    model = build(**settings)
    ids, labels = text()
    at_depth, as_trained = depth_curves(model, [(ids, labels)], 3.5, loops)
    trained = validate(model, [(ids, labels)], 3.5, torch.device("cpu"))
    for entry, expected in zip(as_trained.per_loop, trained, strict=False):
        for name in ("loss", "perplexity", "bits_per_byte", "l2_norm", "rms"):
            assert getattr(entry, name) == pytest.approx(getattr(expected, name), rel=1e-5)
    assert as_trained.per_loop[0].loss != pytest.approx(at_depth.per_loop[0].loss, rel=1e-3)
    assert as_trained.per_loop[2:] == at_depth.per_loop[2:]


@pytest.mark.smoke
def test_labels_that_are_ignored() -> None:
    """Answers of unequal length, one window always right, one never, one without a label."""
    model = build()
    ids, labels = text(windows=4)
    with torch.no_grad():
        said = list(unroll(model, ids, 2))[-1].logits().argmax(dim=-1)
    labels[:] = -100
    labels[0, 3:6] = said[0, 3:6]
    labels[1, 2:4] = (said[1, 2:4] + torch.tensor([0, 1])) % 61
    labels[2, 9] = (said[2, 9] + 1) % 61
    (curve,) = depth_curves(model, [(ids[:3], labels[:3]), (ids[3:], labels[3:])], 3.5, loops=2)
    agrees_without_last = reference(model, ids[:3], labels[:3], 2)
    assert curve.window_labels == (3, 2, 1, 0)
    assert curve.per_loop[1].exact_match == pytest.approx(1 / 3)
    assert curve.per_loop[1].accuracy == pytest.approx(4 / 6)
    assert curve.per_loop[1].loss == pytest.approx(agrees_without_last[1]["loss"], rel=1e-6)
    assert math.isnan(curve.window_loss[1][3])


@settings(max_examples=15)
@given(order=st.permutations(range(6)), size=st.integers(1, 6))
def test_order_and_batch_size_change_nothing(order: list[int], size: int) -> None:
    model = build(readout="final-only", loops=2)
    ids, labels = text(windows=6)
    whole = depth_curves(model, [(ids, labels)], 3.5)
    moved = depth_curves(model, zip(ids[order].split(size), labels[order].split(size), strict=True), 3.5)
    for one, other in zip(whole, moved, strict=True):
        for name in ("loss", "accuracy", "l2_norm", "rms"):
            values = [[getattr(entry, name) for entry in curve.per_loop] for curve in (one, other)]
            assert values[0] == pytest.approx(values[1], rel=1e-5)
        for before, after in zip(one.window_loss, other.window_loss, strict=True):
            assert [before[place] for place in order] == pytest.approx(after, rel=1e-5)


class Watched(LoopedTransformer):
    """Counts hidden states that are alive when the next one is born."""

    alive = 0
    most = 0

    def core(self, hidden: Tensor, loop: int, context: Any) -> Tensor:
        made = super().core(hidden, loop, context)
        type(self).alive += 1
        type(self).most = max(self.most, self.alive)
        weakref.finalize(made, self._gone)
        return made

    @classmethod
    def _gone(cls) -> None:
        cls.alive -= 1


def test_memory_does_not_grow_with_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most the state that is read and the next one live at once; logits only ever exist in chunks."""
    monkeypatch.setattr(scores_module, "CHUNK_ELEMENTS", 61 * 7)
    torch.manual_seed(0)
    model = Watched(ModelConfig(**{**TINY, "readout": "final-only"}))
    sizes: list[int] = []
    head = model.head
    monkeypatch.setattr(
        model, "head", lambda features: sizes.append(features[..., 0].numel()) or head(features)
    )
    most = []
    for loops in (3, 24):
        Watched.most = 0
        depth_curves(model, [text()], 3.5, loops)
        most.append(Watched.most)
    assert most[0] == most[1] <= 2
    assert max(sizes) == 7


def test_one_unroll_serves_all_depths(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = build(readout="final-only"), []
    core = model.core
    monkeypatch.setattr(model, "core", lambda *given: calls.append(given[1]) or core(*given))
    batches = [text(seed=seed) for seed in range(4)]
    depth_curves(model, batches, 3.5, loops=9)
    begun = calls.count(1)
    assert begun == len(batches) + 2  # one to learn the vocabulary, one to learn whether the readings differ


def test_the_model_keeps_its_mode_and_dropout_is_off() -> None:
    model = build(dropout=0.5).train()
    model.layers[0].eval()
    batch = text()
    assert depth_curves(model, [batch], 3.5) == depth_curves(model, [batch], 3.5)
    assert model.training
    assert not model.layers[0].training


def test_token_scores_are_cross_entropy_and_argmax(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    ids, labels = text()
    labels[0, :4] = -100
    state: LoopState = next(iter(unroll(model, ids)))
    loss, hit = token_scores(model.head, state.features(), labels, 61)
    logits = state.logits().detach()
    torch.testing.assert_close(loss, F.cross_entropy(logits.transpose(1, 2), labels, reduction="none"))
    assert torch.equal(hit, logits.argmax(dim=-1) == labels)
    monkeypatch.setattr(scores_module, "CHUNK_ELEMENTS", 61 * 3)
    monkeypatch.setattr(scores_module, "CACHED_ELEMENTS", 61 * 2)
    again, hits = token_scores(model.head, state.features(), labels, 61)
    torch.testing.assert_close(again, loss)
    assert torch.equal(hits, hit)


def test_logits_far_below_the_largest_cost_no_digit() -> None:
    features = 200 * torch.randn(
        1, 8, 300, generator=torch.Generator().manual_seed(0)
    )  # powers are denormal, or 0
    features[0, 0, 7] = -math.inf
    labels = torch.arange(8)[None]
    loss, _ = token_scores(lambda given: given, features, labels, 300)
    exact = F.cross_entropy(features.double().transpose(1, 2), labels, reduction="none")
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=1e-6)
    assert float(powers_of(torch.tensor([-math.inf, -100.0, -60.0])).min()) == pytest.approx(
        math.exp(-60), rel=1e-5
    )


def test_of_equal_logits_the_first_counts() -> None:
    logits = torch.tensor([[[1.0, 3.0, 3.0], [1.0, 3.0, 3.0], [3.0, 1.0, 3.0]]])
    _, hit = token_scores(lambda features: features, logits, torch.tensor([[1, 2, 0]]), 3)
    assert hit.tolist() == [[True, False, True]]


@pytest.mark.parametrize("loops", [0, -1, 2.0, True, "4"])
def test_loops_that_are_no_depth(loops: Any) -> None:
    with pytest.raises(ValueError, match="whole number from 1 up"):
        depth_curves(build(), [text()], 3.5, loops)


def test_text_that_does_not_fit() -> None:
    ids, labels = text()
    with pytest.raises(ValueError, match="nothing to evaluate on"):
        depth_curves(build(), [], 3.5)
    with pytest.raises(ValueError, match="nothing to evaluate on"):
        depth_curves(build(), [(ids, labels * 0 - 100)], 3.5)
    with pytest.raises(ValueError, match="input_ids go from 0 to 61; this model has ids 0 to 60"):
        depth_curves(build(), [(ids * 0 + torch.arange(16) % 2 * 61, labels)], 3.5)
    with pytest.raises(ValueError, match="one label per token"):
        depth_curves(build(), [(ids, labels[:, 1:])], 3.5)
