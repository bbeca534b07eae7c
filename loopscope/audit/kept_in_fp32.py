"""Weights that a model of transformers keeps in fp32 when it is loaded in half precision: routers, norms, …"""

import re

import torch
from torch import nn

STRICTLY = "_keep_in_fp32_modules_strict"
"""Names of parts that stay in fp32 whatever half precision is asked for."""
IN_FP16 = "_keep_in_fp32_modules"
"""Names of parts that stay in fp32 where fp16 is asked for."""


def kept_in_fp32(model: nn.Module, dtype: torch.dtype | None) -> set[int]:
    """Return what stays in fp32 in a model loaded in `dtype`, by id of the parameter or buffer.

    A part of transformers says so by patterns that are looked for in the names of its tensors, `*` for any characters.
    """
    lists = {torch.bfloat16: [STRICTLY], torch.float16: [STRICTLY, IN_FP16]}.get(dtype, []) if dtype else []
    kept: set[int] = set()
    for module in model.modules():
        said = [name for place in lists for name in getattr(module, place, None) or ()]
        if not said:
            continue
        pattern = re.compile("|".join(name.replace("*", ".*") for name in said))
        for named in (module.named_parameters(), module.named_buffers()):
            kept |= {id(tensor) for name, tensor in named if pattern.search(name)}
    return kept
