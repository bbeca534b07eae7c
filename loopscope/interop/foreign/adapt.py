"""`loopscope.adapt`: which adapter a module gets, by its structure."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from loopscope.interop.foreign.checks.side_paths import BESIDE
from loopscope.interop.foreign.families.base import FamilyAdapter
from loopscope.interop.foreign.families.hrm_text import HrmText
from loopscope.interop.foreign.families.huginn import Huginn
from loopscope.interop.foreign.families.named import FOLLOWED
from loopscope.interop.foreign.families.ouro import Ouro
from loopscope.interop.foreign.families.parcae import Parcae
from loopscope.interop.foreign.families.reasoning import Reasoning
from loopscope.interop.foreign.families.x_transformers import XTransformers
from loopscope.interop.foreign.suggestion import suggestion
from loopscope.interop.foreign.wrap import wrap
from loopscope.interop.huggingface.export.live_module import looped_of
from loopscope.recurrence import AbstractLoopedLM

ADAPTERS: Sequence[Any] = (HrmText, Reasoning, XTransformers, Ouro, Parcae, Huginn)
"""Subclasses of `FamilyAdapter`, in the order in which `adapt` asks them."""

_SHELLS = {
    "_orig_mod": "OptimizedModule",
    "module": "DistributedDataParallel",
    "net": "AutoregressiveWrapper",
    "base_model": "PeftModel",
    "model": "BaseTuner",
}


def adapt(module: Any) -> AbstractLoopedLM:
    """Return a looped model of a known family around `module`, ready for every audit.

    The family is recognised by the module's attributes, so remote code and local classes work alike. The
    weights stay the module's own. H_k is the raw state: before the norm, the adapter, or whatever the module
    does between loops. The adapter has compared its logits with the module's own forward when it is returned.

    Args:
        module: a model that Loopscope exported, HRM-Text, HRM and TRM for puzzles, x-transformers with
            `looped=True`, Ouro, Huginn, Parcae, Dory,
            Inkling-2 loop, Nanbeige, LoopCoder, OpenMythos, LoopLM, LoopFormer, looped_nanochat, ALBERT or the
            published class; shells around one (compiled, distributed, autoregressive, PEFT's) are taken
            off; adapters in its layers stay.

    Raises:
        ValueError: not a module, of no known family, or of one whose logits it could not reproduce.
    """
    if isinstance(module, AbstractLoopedLM):
        return module
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"module is {type(module).__name__}; give a torch.nn.Module, loaded and ready to run"
        )
    inner: nn.Module = module
    while (shell := _shell(inner)) is not None:
        inner = shell
    if (own := looped_of(inner)) is not None:
        _tell_untied(inner)
        return own
    for family in ADAPTERS:
        if family.recognises(inner):
            adapted: FamilyAdapter = family(inner)
            adapted.check()
            return adapted
    for named in FOLLOWED:
        if named.recognises(inner):
            with warnings.catch_warnings():
                if named.side_state:
                    warnings.filterwarnings("ignore", message=BESIDE)
                return wrap(inner, named.block(inner), **named.options)
    names = [*(family.family for family in ADAPTERS), *(named.family for named in FOLLOWED)]
    raise ValueError(
        f"{type(inner).__name__} has the structure of none of the families known: {', '.join(dict.fromkeys(names))}."
        f"{_hint(inner)} {suggestion(inner)}"
    )


def _tell_untied(exported: Any) -> None:
    """Warn of a head that a tool has parted from its embedding: torchao's `quantize_` does, without a word."""
    head, table = exported.get_output_embeddings(), exported.get_input_embeddings()
    tied = getattr(head, "weight", None) is getattr(table, "weight", None)
    if exported.config.tie_word_embeddings and not tied and not any(p.is_meta for p in exported.parameters()):
        warnings.warn(
            f"the config of this {type(exported).__name__} ties its head to its embedding, and they are two matrices: "
            "something has replaced one (torchao's quantize_ does, if filter_fn does not leave out 'unembedding'). The "
            "model is measured as it is",
            stacklevel=3,
        )


def recognised(module: nn.Module) -> bool:
    """Return whether a module has the structure of a family that `adapt` knows."""
    return any(family.recognises(module) for family in (*ADAPTERS, *FOLLOWED))


def _shell(module: nn.Module) -> nn.Module | None:
    for name, kind in _SHELLS.items():
        inner = getattr(module, name, None)
        if isinstance(inner, nn.Module) and kind in {base.__name__ for base in type(module).__mro__}:
            return inner
    return None


def _hint(module: nn.Module) -> str:
    if hasattr(module, "attn_layers") and not getattr(module, "looped", True):
        return " It is an x-transformers model without looped=True: it is not a loop."
    return ""
