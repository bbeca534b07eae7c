"""Starting from another run's weights: what is checked first, and what a resumed run still needs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopscope.config.recipes import recipe
from loopscope.data.tokenizers.byte import ByteTokenizer
from loopscope.data.tokenizers.word import SPECIAL, WordTokenizer
from loopscope.interop.model_folder import save_model
from loopscope.jobs.train import execute
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.results.manifest import sha256_of
from loopscope.training.checkpoint import Progress, save_checkpoint
from loopscope.training.weights import load_weights

CONFIG = ModelConfig(dim=16, heads=2, layers=1, loops=2, vocabulary=256, sequence=8)
TOKENIZER = ByteTokenizer().to_text()


def made(seed: int) -> LoopedTransformer:
    torch.manual_seed(seed)
    return LoopedTransformer(CONFIG)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    model = made(1)
    optimizer = torch.optim.AdamW(model.parameters())
    files = {"tokenizer.json": TOKENIZER}
    return save_checkpoint(tmp_path / "source", Progress(3, 30, 1.0), model, optimizer, files)


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("whole_run", [True, False])
def test_a_checkpoint_is_verified_before_a_weight_is_taken(source: Path, whole_run: bool) -> None:
    """One flipped bit: safetensors reads it without a word, the recorded hash does not."""
    named = str(source.parent.parent if whole_run else source)
    model = made(0)
    load_weights(model, named, TOKENIZER)
    assert equal(model, made(1))
    weights = source / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    model = made(0)
    with pytest.raises(ValueError, match="was changed after it was written"):
        load_weights(model, named, TOKENIZER)
    assert equal(model, made(0))


def test_another_tokenizer_is_refused_and_another_layout_of_the_same_is_not(source: Path) -> None:
    load_weights(made(0), str(source), json.dumps(json.loads(TOKENIZER), indent=3))
    model = made(0)
    with pytest.raises(ValueError, match=r"tokenizer.json differs from this run's tokenizer"):
        load_weights(model, str(source), WordTokenizer([*SPECIAL, "a", "b"]).to_text())
    assert equal(model, made(0))


def test_a_run_that_has_a_checkpoint_no_longer_needs_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPSCOPE_CACHE", str(tmp_path / "cache"))

    def tiny(**training: Any) -> Any:
        return recipe(
            "laptop",
            "dense/rmsnorm",
            {
                "model": {"dim": 16, "heads": 2, "layers": 1, "loops": 2, "vocabulary": 256, "sequence": 16},
                "data": {"max_bytes": 20_000, "max_validation_bytes": 2_000, "tokenizer": "bytes"},
                "training": {"steps": 2, "batch": 4, "precision": "fp32", "threads": 1, **training},
            },
        )

    first, second = tmp_path / "first", tmp_path / "second"
    execute(tiny(), first, quiet=True)
    config = tiny(weights=str(first))
    whole = execute(config, second, quiet=True)
    plain = load_file(first / "checkpoints" / "step-00000002" / "model.safetensors")
    tuned = load_file(second / "checkpoints" / "step-00000002" / "model.safetensors")
    assert not all(torch.equal(plain[name], tuned[name]) for name in plain)
    shutil.rmtree(first)
    (second / "result.json").unlink()
    assert execute(config, second, resume=True, quiet=True).per_loop == whole.per_loop
    with pytest.raises(ValueError, match="holds neither model.safetensors nor checkpoints"):
        execute(config, tmp_path / "third", quiet=True)


def test_weights_that_are_not_finite_are_named(source: Path) -> None:
    weights = source / "model.safetensors"
    tensors = load_file(weights)
    tensors["layers.0.attention.out.weight"][2, 1] = float("inf")
    save_file(tensors, weights)
    state = json.loads((source / "state.json").read_text())
    state["sha256"]["model.safetensors"] = sha256_of(weights)
    del state["sha256_of_this_table"]
    (source / "state.json").write_text(json.dumps(state))
    model = made(0)
    with pytest.raises(
        ValueError,
        match=r"layers.0.attention.out.weight has 1 of 256 numbers that are not finite \(the first, inf, at \[2, 1\]\)",
    ):
        load_weights(model, str(source), TOKENIZER)
    assert equal(model, made(0))


def learned(sequence: int) -> LoopedTransformer:
    torch.manual_seed(sequence)
    return LoopedTransformer(CONFIG.model_copy(update={"positions": "learned", "sequence": sequence}))


def test_a_shorter_window_has_the_first_learned_positions(tmp_path: Path) -> None:
    """The same logits as the whole, on every text that it takes; beyond what was learned there is nothing to take."""
    source, shorter = learned(8), learned(5)
    save_model(source, tmp_path / "source", {}, {})
    load_weights(shorter, str(tmp_path / "source"))
    ids = torch.arange(10).view(2, 5)
    with torch.no_grad():
        assert torch.equal(shorter.eval()(ids), source.eval()(ids))
    message = r"\(1 difference\): position_embedding.weight is \(8, 16\) there, \(9, 16\) here .*model.sequence: 8\)"
    with pytest.raises(ValueError, match=message):
        load_weights(learned(9), str(tmp_path / "source"))
