"""The published code's checkpoints (`last.pt` of Sharma and Vu, arXiv 2606.24898) as our models.

Read with torch's weights-only loader: a pickle that would run code is refused. Parameters that the
checkpoint's own settings never use (`loop_norm` without a norm between loops, `raw_alpha` without damping)
are left behind; settings that this version does not know are refused by name rather than guessed.
"""

import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from loopscope.interop.model_folder import check_state
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer

_LAYER = {
    "attn_norm": "attention_norm",
    "attn.qkv": "attention.qkv",
    "attn.out_proj": "attention.out",
    "ffn_norm": "feed_forward_norm",
    "ffn.w1": "feed_forward.gate",
    "ffn.w3": "feed_forward.up",
    "ffn.w2": "feed_forward.down",
}
_ALPHA = ("alpha_value", "alpha_logit", "log_s_ref", "ema_count")
_PLACEMENTS = {"per-step": "dense", "terminal": "terminal", "adaptive": "exit-weighted"}
# Settings of the published code that change what the model computes and that are not known here.
_UNSUPPORTED = {"block_norm_type": "rmsnorm", "loop_norm_type": "rmsnorm"}
_OF_OTHER_TYPES = (KeyError, IndexError, TypeError, AttributeError, OverflowError, RuntimeError)


@dataclass(frozen=True)
class PublishedCheckpoint:
    """What a published `last.pt` holds: our model with its weights, its objective, and its tokenizer's parts."""

    model: LoopedTransformer
    objective: Mapping[str, Any]  # sections of ObjectiveConfig: what it was trained on
    itos: tuple[str, ...]  # the tokenizer's entries by id
    pattern: str  # the tokenizer's regular expression
    step: int


def read_published(path: str | Path) -> PublishedCheckpoint:
    """Read a published `last.pt` and return its model, objective and tokenizer. Nothing in it is executed.

    Raises:
        ValueError: missing, cut short, not a checkpoint of that code, holding a pickle that would run
            code, or using a setting that this version does not know.
    """
    path = Path(path)
    data = _read(path)
    for key in ("model_state", "config"):
        if not isinstance(data.get(key), Mapping):
            raise ValueError(f"{path} has no {key!r}; a published last.pt holds model_state and config")
    try:
        return _checkpoint(path, data)
    except ValidationError as error:
        cause = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:4])
    except _OF_OTHER_TYPES as error:  # a stranger's, or damaged: any value may be of any type
        cause = f"{type(error).__name__}: {error}"
    except ValueError as error:
        if str(path) in str(error):
            raise
        cause = str(error)
    raise ValueError(f"{path}: its config cannot be read as a published model: {cause}")


def _checkpoint(path: Path, data: Mapping[str, Any]) -> PublishedCheckpoint:
    config, state = data["config"], data["model_state"]
    sections = {"model": config.get("model"), "supervision": config.get("supervision", {})}
    sections |= {"alpha_readout": config.get("alpha_readout") or {}, "tokenizer": data.get("tokenizer") or {}}
    if odd := next((name for name, value in sections.items() if not isinstance(value, Mapping)), None):
        raise ValueError(f"{path}: its section {odd!r} is no mapping")
    if odd := next((name for name, value in state.items() if not isinstance(value, Tensor)), None):
        raise ValueError(f"{path}: {odd!r} in model_state is no tensor")
    model_config = _model_config(config, state)
    model = LoopedTransformer(model_config)
    renamed = rename_state(state, model)
    check_state(model, renamed, path)
    model.load_state_dict(renamed)
    tokenizer = sections["tokenizer"]
    itos, pattern = tuple(tokenizer.get("itos", ())), tokenizer.get("pattern", r"\s+|[A-Za-z0-9_]+|[^\w\s]")
    if not isinstance(pattern, str) or not all(isinstance(entry, str) for entry in itos):
        raise ValueError(f"{path}: its tokenizer's entries and pattern are not all text")
    return PublishedCheckpoint(
        model=model.eval(),
        objective=_objective(sections["supervision"]),
        itos=itos,
        pattern=pattern,
        step=int(data.get("global_step", 0)),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(
            f"{path} is not a file; give the path of a last.pt, which the paper's own code writes. To train a model of "
            "your own none is needed: loopscope train --out runs/first"
        )
    _check_sums(path)
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was not loaded: it holds something other than tensors and plain values, or is damaged. "
            f"Loopscope never executes a pickle ({_cause(error)})"
        ) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        raise ValueError(
            f"{path} cannot be read: cut short, or not a torch checkpoint ({_cause(error)})"
        ) from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds a {type(data).__name__}; a published last.pt holds a dict")
    return data


def _check_sums(path: Path) -> None:
    """Refuse a file whose tensors are not those that were saved: torch does not look at the sums beside them."""
    if not zipfile.is_zipfile(path):  # torch's older format, which has none, or no checkpoint: torch says
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ValueError(f"{path} is damaged ({_cause(error)}); fetch it again") from error
    if damaged is not None:
        raise ValueError(f"{path} is damaged: the checksum of {damaged!r} in it is wrong; fetch it again")


def _cause(error: Exception) -> str:
    """The first sentence of torch's message: what follows it advises to load unsafely."""
    return (
        (str(error) or type(error).__name__)
        .splitlines()[0]
        .split("Re-running")[0]
        .split(" In PyTorch")[0]
        .strip()
    )


def _model_config(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> ModelConfig:
    model = config["model"]
    for key, known in _UNSUPPORTED.items():
        if model.get(key, known) != known:
            raise ValueError(f"{key} is {model[key]!r}; only {known!r} can be imported")
    vocabulary, dim = state["token_embedding.weight"].shape
    carry = [
        name
        for name, used in (
            ("rmsnorm", model.get("inter_loop_norm", True)),
            ("damping", model.get("use_spectral_damping", False)),
        )
        if used
    ]
    return ModelConfig(
        dim=dim,
        layers=model["num_layers"],
        heads=model["num_heads"],
        loops=model["num_loops"],
        vocabulary=vocabulary,
        sequence=state["position_embedding.weight"].shape[0],
        readout=_readout(model, config.get("alpha_readout") or {}),
        carry=tuple(carry),
        feed_forward=model["ff_multiplier"],
        tied=model.get("tie_weights", True),
        exit_gate=True,
        dropout=model.get("dropout", 0.1),
        initialisation="published",
    )


def _readout(model: Mapping[str, Any], alpha: Mapping[str, Any]) -> dict[str, Any]:
    if not model.get("use_decode_norm", True):
        return {"kind": "raw"}
    kind = model.get("decode_norm_type", "rmsnorm")
    final_only = model.get("decode_norm_final_only", False)
    if kind == "rmsnorm" or (kind == "layernorm" and not final_only):
        return {"kind": "final-only" if final_only else kind}
    if kind != "alpha_readout" or final_only:
        also = " with decode_norm_final_only" if final_only else ""
        raise ValueError(f"decode_norm_type is {kind!r}{also}; importable: rmsnorm, layernorm, alpha_readout")
    fixed = alpha.get("fixed_alpha")
    return {
        "kind": "alpha",
        "alpha": alpha.get("init_alpha", 0.5) if fixed is None else fixed,
        "learned": fixed is None,
        "per_loop": alpha.get("per_loop_alpha", False),
        "s_ref": alpha.get("s_ref_mode", "ema"),
        "ema_decay": alpha.get("ema_decay", 0.99),
        "alpha_min": alpha.get("alpha_min", 0.0),
        "alpha_max": alpha.get("alpha_max", 1.0),
    }


def rename_state(state: Mapping[str, Tensor], model: LoopedTransformer) -> dict[str, Tensor]:
    """Return a published state dict under our parameter names, without what the model's config leaves out."""
    config = model.config
    names = {"token_embedding.weight": "token_embedding.weight"}
    names["position_embedding.weight"] = "position_embedding.weight"
    for layer in range(config.layers):
        for theirs, ours in _LAYER.items():
            names[f"layers.{layer}.{theirs}.weight"] = f"layers.{layer}.{ours}.weight"
    if not config.tied:
        names["lm_head.weight"] = "unembedding.weight"
    names |= {"exit_gate.weight": "gate.weight", "exit_gate.bias": "gate.bias"}
    if "rmsnorm" in config.carry:
        names["loop_norm.weight"] = "carries.rmsnorm.norm.weight"
    if "damping" in config.carry:
        names["raw_alpha"] = "carries.damping.logit"
    for parameter in ("weight", "bias"):
        names[f"decode_norm.{parameter}"] = f"reading.norm.{parameter}"
    renamed = {ours: state[theirs] for theirs, ours in names.items() if theirs in state}
    if config.readout.kind == "alpha":
        renamed |= _alpha_state(state, model)
    return renamed


def _alpha_state(state: Mapping[str, Tensor], model: LoopedTransformer) -> dict[str, Tensor]:
    readout = model.config.readout
    prefixes = (
        [f"decode_norm.{loop}." for loop in range(model.loops)] if readout.per_loop else ["decode_norm."]
    )
    wanted = {name for name in _ALPHA if f"reading.{name}" in model.state_dict()}
    return {
        f"reading.{name}": torch.stack([state[prefix + name] for prefix in prefixes])
        for name in wanted
        if all(prefix + name in state for prefix in prefixes)
    }


def _objective(supervision: Mapping[str, Any]) -> dict[str, Any]:
    mode = supervision.get("mode", "per-step")
    if mode not in _PLACEMENTS:
        raise ValueError(f"supervision mode is {mode!r}; importable: {', '.join(_PLACEMENTS)}")
    objective: dict[str, Any] = {"placement": _PLACEMENTS[mode]}
    if mode == "adaptive":
        objective["entropy_weight"] = supervision.get("entropy_weight", 0.1)
    if weight := supervision.get("norm_penalty_weight", 0.0):
        objective["norm_penalty"] = {"weight": weight}
    if weight := supervision.get("scale_anchor_weight", 0.0):
        target = supervision.get("scale_anchor_target", 1.0)
        objective["scale_anchor"] = {"weight": weight, "target": target}
    return objective
