"""Exported models in the registers of transformers: what `AutoConfig` and `AutoModelForCausalLM` load them as."""

import sys
from importlib import import_module
from typing import Any

from loopscope.interop.huggingface.export.exported_config import MODEL_TYPE, LoopscopeConfig

_MODEL = "loopscope.interop.huggingface.export.exported_model"


def register_config() -> None:
    """Let `AutoConfig` know the config."""
    from transformers import AutoConfig

    AutoConfig.register(MODEL_TYPE, LoopscopeConfig, exist_ok=True)


def register_model() -> None:
    """Let `AutoModelForCausalLM` know the model."""
    if _MODEL in sys.modules and not hasattr(sys.modules[_MODEL], "LoopscopeForCausalLM"):
        return  # it is being imported, and what it imports has brought us here: it registers itself at its end
    from transformers import AutoModelForCausalLM

    register_config()
    model: Any = import_module(_MODEL).LoopscopeForCausalLM
    AutoModelForCausalLM.register(LoopscopeConfig, model, exist_ok=True)
