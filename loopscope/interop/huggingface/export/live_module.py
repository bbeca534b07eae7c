"""The looped model inside a module that transformers holds, whose weights it shares."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from loopscope.interop.huggingface.export.exported_folder import EXPORT_TYPE, settings_of
from loopscope.model.looped import LoopedTransformer


def looped_of(module: nn.Module) -> LoopedTransformer | None:
    """Return the looped model of an exported one, with the same parameters; None where it is none.

    Of the class of an export's own code (`trust_remote_code`) the layers are put into ours.

    Raises:
        ValueError: a config that this version does not read.
    """
    inner = getattr(module, "model", None)
    config = getattr(module, "config", None)
    if not isinstance(inner, nn.Module) or getattr(config, "model_type", None) != EXPORT_TYPE:
        return None
    if isinstance(inner, LoopedTransformer):
        return inner
    assert config is not None
    with torch.device("meta"):
        view = LoopedTransformer(settings_of(config.to_dict(), Path(type(module).__name__)))
    given = dict(inner.named_parameters(remove_duplicate=False)) | dict(inner.named_buffers())
    for name in [*(name for name, _ in view.named_parameters()), *(name for name, _ in view.named_buffers())]:
        if name not in given:
            raise ValueError(f"{type(module).__name__} has no {name}, which its config says that it has")
        owner, _, leaf = name.rpartition(".")
        place = view.get_submodule(owner)
        tensors: dict[str, Any] = place._parameters if leaf in place._parameters else place._buffers
        tensors[leaf] = given[name]
    return view.train(module.training)
