"""Tiny configs that between them reach every architecture setting; shared by tests of the model."""

from typing import Any

import torch

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer

TINY: dict[str, Any] = {"dim": 32, "layers": 2, "heads": 4, "loops": 3, "vocabulary": 61, "sequence": 16}

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prelude and coda": {"prelude": 1, "coda": 2},
    "add": {"injection": "add"},
    "gated from zero": {"injection": "gated", "start": "zero"},
    "huginn": {
        "prelude": 2,
        "coda": 2,
        "coda_norm": True,
        "injection": "concat",
        "start": "random",
        "embedding_gain": "sqrt-dim",
        "positions": "rotary",
        "attention": {"rotary_base": 50_000.0, "qk_bias": True},
        "block": {"placement": "sandwich-sum", "width": 70},
    },
    "ouro": {
        "block": {"placement": "sandwich"},
        "carry": ["readout-norm"],
        "exit_gate": True,
        "gate_reads": "readout",
        "positions": "rotary",
        "tied": False,
    },
    "parcae": {
        "prelude": 1,
        "coda": 1,
        "coda_matrix": True,
        "injection": {"kind": "write", "norm": True},
        "carry": ["decay"],
        "start": "random",
        "positions": "rotary",
        "attention": {"qk_norm": True, "value_embeddings": "added"},
        "block": {"activation": "relu2"},
    },
    "loopformer": {"loop_embedding": "modulation", "block": {"activation": "gelu"}},
    "deeploop": {
        "block": {"placement": "post", "scaling": "deeploop", "norm": "layernorm"},
        "readout": "raw",
    },
    "deepnorm": {"block": {"placement": "post", "scaling": "deepnorm"}},
    "hybrid": {"looped": "attention"},
    "1/N": {"block": {"scaling": "1/N"}},
    "1/sqrt(N)": {"block": {"scaling": "1/sqrt(N)", "placement": "sandwich"}},
    "factored": {"block": {"scaling": "1/(N*sqrt(L))"}},
    "learned loops": {"loop_embedding": "learned"},
    "sinusoidal loops": {"loop_embedding": "sinusoidal"},
    "grouped queries": {"attention": {"key_value_heads": 2}},
    "gated values": {"prelude": 1, "attention": {"value_embeddings": "gated", "key_value_heads": 2}},
    "window": {"attention": {"window": 3, "qk_norm": True}},
    "part rotary": {"positions": "rotary", "attention": {"rotary_fraction": 0.5, "rotary_scaling": 2.0}},
    "wide heads": {
        "positions": "rotary",
        "attention": {
            **{"head_dim": 12, "key_value_heads": 2, "qk_norm": True, "bias": True},
            **{"rotary_formula": "inverse", "rotary_scaling": 8.0, "rotary_bands": (1.0, 4.0, 16)},
        },
        "block": {"bias": True},
    },
    "gpt2": {
        "prelude": 1,
        "attention": {"bias": True},
        "block": {"norm": "layernorm", "bias": True, "activation": "gelu-new"},
        "readout": "layernorm",
    },
    "adapters": {"adapters": {"rank": 2, "alpha": 4.0}},
    "decay": {"carry": ["rmsnorm", "decay"], "injection": "add"},
}


def build(name: str, **changes: Any) -> ModelConfig:
    """The tiny config of a variant."""
    return ModelConfig(**{**TINY, **VARIANTS[name], **changes})


IDS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(7))


def live_model(name: str, **changes: Any) -> LoopedTransformer:
    """A tiny model in evaluation mode, with every zero-initialised part moved off zero."""
    torch.manual_seed(0)
    model = LoopedTransformer(build(name, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model
