"""Tiny models of every family that can be looped, as folders that transformers wrote."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.interop.huggingface.test_pretrained import byte_tokenizer

LAYERS, VOCABULARY = 6, 300
SIZES: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96},
}
GPT2_SIZES: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 96},
    **{"bos_token_id": 0, "eos_token_id": 0},
}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 32},
}
FOUND: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama 3": ("llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True, "attention_bias": True}),
    "llama, interpolated": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 3.0}, "mlp_bias": True},
    ),
    "qwen3": ("qwen3", {"head_dim": 12, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", {}),
    "gpt2, other": ("gpt2", {"activation_function": "gelu", "n_inner": 50, "tie_word_embeddings": False}),
    "gpt2, tanh": ("gpt2", {"activation_function": "gelu_pytorch_tanh"}),
}
"""A family, and what differs from its tiny config, by name."""


def source_model(family: str, **changes: Any) -> PreTrainedModel:
    """A tiny model with no weight at a round number, norms' gains and biases included."""
    torch.manual_seed(0)
    module: PreTrainedModel
    if family == "llama":
        module = LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes}))
    elif family == "qwen3":
        module = Qwen3ForCausalLM(Qwen3Config(**{**SIZES, **changes}))
    else:
        module = GPT2LMHeadModel(GPT2Config(**{**GPT2_SIZES, **changes}))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module.eval()


def save_source(folder: Path, family: str, dtype: torch.dtype | None = None, **changes: Any) -> Path:
    """Save one, with a tokenizer of bytes. Weights in fp32 unless `dtype` says otherwise."""
    module = source_model(family, **changes)
    module = module if dtype is None else module.to(dtype)
    module.save_pretrained(folder, max_shard_size="40KB" if family == "qwen3" else "5GB")
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
