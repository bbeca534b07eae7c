"""Which families of transformers can be made into looped models: their settings and weights in our words.

A family is known where our layers compute what its layers do. What a setting of its config would change in that is
refused by name.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

ModelSettings = dict[str, Any]
"""Nested plain values of a `ModelConfig`."""


@dataclass(frozen=True)
class RetrofitFamily:
    """A family whose layers are ours under other names.

    Attributes:
        model_type: what its config.json says.
        readout: the kind of norm before its head.
        settings: its config, as transformers reads it, to settings of ours that its layers are built by.
        positions: attribute of its config: the longest text that it was made for.
        stack: path of its layers.
        layer: parts of a layer here, and there, with several that are one matrix here in order.
        ends: parts outside the layers here, and there.
        transposed: its layers keep matrices as [inputs outputs].
    """

    model_type: str
    readout: str
    settings: Callable[[Any], ModelSettings]
    positions: str
    stack: str
    layer: Mapping[str, tuple[str, ...]]
    ends: Mapping[str, str]
    transposed: bool = False

    def layer_weights(self, layer: nn.Module) -> Iterator[tuple[str, list[Tensor]]]:
        """Return name here and tensors there (to be joined by rows) of all parameters of one layer."""
        for ours, theirs in self.layer.items():
            parts = [layer.get_submodule(name) for name in theirs]
            for kind in ("weight", "bias"):
                found = [tensor for part in parts if (tensor := getattr(part, kind, None)) is not None]
                turned = self.transposed and kind == "weight" and found and found[0].ndim == 2
                if found:
                    yield (
                        f"{ours}.{kind}",
                        [tensor.detach().T if turned else tensor.detach() for tensor in found],
                    )


class UnknownSettingError(ValueError):
    """A setting of a model's config that its family has and our layers have not."""


def _llama(config: Any) -> ModelSettings:
    _only("hidden_act", config.hidden_act, "silu")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    plain_heads = head_dim * config.num_attention_heads == config.hidden_size
    return {
        "dim": config.hidden_size,
        "heads": config.num_attention_heads,
        "vocabulary": config.vocab_size,
        "norm_eps": config.rms_norm_eps,
        "positions": "rotary",
        "block": {"width": config.intermediate_size, "bias": bool(getattr(config, "mlp_bias", False))},
        "attention": {
            "key_value_heads": config.num_key_value_heads,
            "head_dim": None if plain_heads else head_dim,
            "bias": bool(config.attention_bias),
            "rotary_formula": "inverse",
            **_rotary(config.rope_parameters),
        },
    }


def _qwen3(config: Any) -> ModelSettings:
    for kind in dict.fromkeys(getattr(config, "layer_types", None) or ()):
        _only("layer_types", kind, "full_attention")
    settings = _llama(config)
    settings["attention"]["qk_norm"] = True
    return settings


def _rotary(parameters: Mapping[str, Any]) -> ModelSettings:
    """ModelSettings of rotary positions from the `rope_parameters` of a config."""
    kind = parameters.get("rope_type", "default")
    _only("rope_type", kind, "default", "linear", "llama3")
    _only("partial_rotary_factor", parameters.get("partial_rotary_factor", 1.0), 1.0)
    found: ModelSettings = {"rotary_base": float(parameters["rope_theta"])}
    if kind != "default":
        found["rotary_scaling"] = float(parameters["factor"])
    if kind == "llama3":
        found["rotary_bands"] = (
            float(parameters["low_freq_factor"]),
            float(parameters["high_freq_factor"]),
            int(parameters["original_max_position_embeddings"]),
        )
    return found


def _gpt2(config: Any) -> ModelSettings:
    activations = {"gelu_new": "gelu-new", "gelu_pytorch_tanh": "gelu-tanh", "gelu": "gelu"}
    _only("activation_function", config.activation_function, *activations)
    _only("scale_attn_weights", config.scale_attn_weights, True)
    _only("scale_attn_by_inverse_layer_idx", config.scale_attn_by_inverse_layer_idx, False)
    _only("add_cross_attention", config.add_cross_attention, False)
    return {
        "dim": config.n_embd,
        "heads": config.n_head,
        "vocabulary": config.vocab_size,
        "norm_eps": config.layer_norm_epsilon,
        "positions": "learned",
        "block": {
            "norm": "layernorm",
            "activation": activations[config.activation_function],
            "width": config.n_inner or 4 * config.n_embd,
            "bias": True,
        },
        "attention": {"bias": True},
    }


def _only(name: str, value: Any, *known: Any) -> None:
    if value not in known:
        raise UnknownSettingError(
            f"{name} is {value!r}, which our layers do not have (only {', '.join(map(repr, known))})"
        )


_LLAMA_LAYER = {
    "attention_norm": ("input_layernorm",),
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.o_proj",),
    "feed_forward_norm": ("post_attention_layernorm",),
    "feed_forward.gate": ("mlp.gate_proj",),
    "feed_forward.up": ("mlp.up_proj",),
    "feed_forward.down": ("mlp.down_proj",),
}
_LLAMA_ENDS = {
    "token_embedding": "model.embed_tokens",
    "reading.norm": "model.norm",
    "unembedding": "lm_head",
}

LLAMA = RetrofitFamily(
    "llama", "rmsnorm", _llama, "max_position_embeddings", "model.layers", _LLAMA_LAYER, _LLAMA_ENDS
)
QWEN3 = RetrofitFamily(
    "qwen3",
    "rmsnorm",
    _qwen3,
    "max_position_embeddings",
    "model.layers",
    {
        **_LLAMA_LAYER,
        "attention.query_norm": ("self_attn.q_norm",),
        "attention.key_norm": ("self_attn.k_norm",),
    },
    _LLAMA_ENDS,
)
GPT2 = RetrofitFamily(
    "gpt2",
    "layernorm",
    _gpt2,
    "n_positions",
    "transformer.h",
    {
        "attention_norm": ("ln_1",),
        "attention.qkv": ("attn.c_attn",),
        "attention.out": ("attn.c_proj",),
        "feed_forward_norm": ("ln_2",),
        "feed_forward.up": ("mlp.c_fc",),
        "feed_forward.down": ("mlp.c_proj",),
    },
    {
        "token_embedding": "transformer.wte",
        "position_embedding": "transformer.wpe",
        "reading.norm": "transformer.ln_f",
        "unembedding": "lm_head",
    },
    transposed=True,
)
RETROFIT_FAMILIES: Mapping[str, RetrofitFamily] = {
    family.model_type: family for family in (LLAMA, QWEN3, GPT2)
}
"""By the `model_type` of config.json. A new family is a record here."""
