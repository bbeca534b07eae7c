"""Unlooped models: refused by their config.json alone, before a weight is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    Qwen2Config,
)

import loopscope

SMALL: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24}
LAYERS: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2}
UNLOOPED = {
    "llama": LlamaConfig(**SMALL, **LAYERS, num_key_value_heads=1),
    "qwen2": Qwen2Config(**SMALL, **LAYERS, num_key_value_heads=1),
    "mixtral": MixtralConfig(**SMALL, **LAYERS, num_key_value_heads=1),
    "gemma": GemmaConfig(**SMALL, **LAYERS, num_key_value_heads=1, head_dim=8),
    "gpt_neox": GPTNeoXConfig(**SMALL, **LAYERS),
    "gpt2": GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32),
}


@pytest.mark.smoke
@pytest.mark.parametrize("name", UNLOOPED)
def test_the_config_alone_is_enough(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loading(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loading)
    UNLOOPED[name].save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(
        ValueError,
        match=r"(CausalLM|LMHeadModel), .* No part of it is applied more than once.*needs one that applies the same",
    ):
        loopscope.load(tmp_path)


def test_it_is_said_on_the_command_line(
    tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    UNLOOPED["gpt2"].save_pretrained(tmp_path)
    assert call("audit", tmp_path) == 2
    said = capsys.readouterr().err
    assert "GPT2LMHeadModel" in said
    assert "Traceback" not in said


def test_what_a_config_cannot_tell_is_loaded(tmp_path: Path) -> None:
    """Not refused as unlooped: what is wrong with it is said by whoever reads it."""
    UNLOOPED["llama"].save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_attention_heads": 3}))
    with pytest.raises(ValueError, match="not its weights: model.safetensors missing"):
        loopscope.load(tmp_path)
