"""Whether a folder's config.json alone shows that its model is no loop: said before its weights are read.

The module is built on the `meta` device, which has shapes and no numbers, and its parts are counted in one run there.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from loopscope.interop.foreign.adapt import recognised
from loopscope.interop.foreign.suggestion import NOTHING_REPEATS, calls_in

_TOKENS = 4


def refuse_unlooped(folder: Path) -> None:
    """Refuse a model native in transformers of which no part is applied twice; pass over what cannot be told.

    Raises:
        ValueError: names the class, and what an audit needs.
    """
    try:
        module = _without_weights(folder)
        if recognised(module) or _repeats(module):
            return
    except Exception:  # it is loaded then, and says itself what is wrong
        return
    raise ValueError(
        f"{folder} holds {type(module).__name__}, as its config.json says. {NOTHING_REPEATS}. Its weights were not read"
    )


def _without_weights(folder: Path) -> nn.Module:
    import transformers

    config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    build: Any = transformers.AutoModelForCausalLM.from_config
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: nn.Module = build(
            config, dtype=torch.bfloat16
        ).eval()  # some operations on `meta` have no other type
    return module


def _repeats(module: nn.Module) -> bool:
    ids = torch.zeros(1, _TOKENS, dtype=torch.long, device="meta")
    # With a mask of its final form no forward looks into the ids' positions, which have no numbers here.
    mask = torch.zeros(1, 1, _TOKENS, _TOKENS, dtype=torch.bfloat16, device="meta")
    with torch.no_grad():
        counts = calls_in(module, lambda: module(ids, attention_mask=mask, use_cache=False))
    return any(times > 1 for times in counts.values())
