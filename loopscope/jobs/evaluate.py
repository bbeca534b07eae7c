"""A model's evaluation record: begun or gone on with, and back into its folder. What every part of it shares."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from loopscope.config.nested import read_yaml, validated
from loopscope.config.run_config import RunConfig
from loopscope.data.config import DataConfig
from loopscope.interop.huggingface.pretrained import is_transformers_folder
from loopscope.jobs.folder import read_result
from loopscope.jobs.kept_records import warn_of_other
from loopscope.jobs.opened import OpenedModel, parameter_count
from loopscope.jobs.text import TextWindows
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.plan.parameters import forward_flops
from loopscope.plan.training_flops import training_cost
from loopscope.results import ModelEvaluation, load_evaluation, provenance, to_json
from loopscope.results.checkpoints import model_folder
from loopscope.results.faults import in_words
from loopscope.results.layout import (
    AUDIT,
    CONFIG,
    EVALUATION,
    MANIFEST,
    PREVIOUS_EVALUATION,
    STATE,
    write_text,
)
from loopscope.results.manifest import sha256_of
from loopscope.training.config import TrainingConfig


def evaluation_of(opened: OpenedModel, windows: TextWindows, deepest: int) -> ModelEvaluation:
    """The model's evaluation so far where it was made on the same text, else a new one.

    Args:
        deepest: FLOPs are counted for every depth up to it.
    """
    sections = run_sections(opened.path)
    model, training = opened.model, sections.get("training") or {}
    sequence = windows.input_ids.shape[1]
    flops: tuple[float, ...] = ()
    trained: float | None = None
    if isinstance(model, LoopedTransformer):
        flops = tuple(float(forward_flops(model.config, sequence, k, exits=1)) for k in range(1, deepest + 1))
        trained = float(training_cost(_as_run(sections, model)))
    begun = ModelEvaluation(
        name=opened.name,
        condition=sections.get("condition"),
        size=sections.get("size"),
        seed=training.get("seed"),
        trained_loops=model.loops,
        parameters=parameter_count(model),
        data=windows.text,
        bytes_per_token=windows.bytes_per_token,
        windows=len(windows),
        sequence=sequence,
        flops_per_token=flops,
        training_flops_per_token=trained,
        tokens_trained=tokens_trained(opened.path),
        depth_conditioned=model.depth_conditioned,
        fingerprint=opened.fingerprint,
        unknown_share=windows.unknown_share,
        unread_share=windows.unread_share,
        provenance=provenance("cpu", torch.get_num_threads()),
        weights=checkpoint_hash(opened.path),
        tokens=windows.hash,
        flops_counted=not isinstance(model, LoopedTransformer),
    )
    kept = load_evaluation(opened.kept_at) if opened.keeps and opened.kept_at.is_dir() else None
    if kept is None or _changed(kept, begun):
        return begun
    longer = max(kept.flops_per_token, begun.flops_per_token, key=len)
    return replace(
        begun, flops_per_token=longer, depth=kept.depth, exits=kept.exits, prognosis=kept.prognosis
    )


_SAME = ("condition", "seed", "data", "windows", "sequence", "trained_loops", "parameters", "tokens_trained")
"""An evaluation with another of these is of another text or another model: it is begun anew."""
_SAME_WHERE_KNOWN = {
    "weights": "another checkpoint",
    "fingerprint": "other weights or settings",
    "tokens": "other windows",
}
"""The same, with their words; records of earlier versions do not have them."""


def keep_evaluation(opened: OpenedModel, evaluation: ModelEvaluation) -> Path | None:
    """Keep an evaluation beside its model, for reports; None where the path is no folder, or cannot be written.

    One of another text or another model makes room, under the name `PREVIOUS_EVALUATION`, with a warning. What was
    there stays until the new one is whole. Where nothing can be kept a warning says so: what was measured is not lost.
    """
    if not (opened.keeps and opened.kept_at.is_dir()):
        return None
    path = opened.kept_at / EVALUATION
    try:
        _make_room(path, evaluation)
        write_text(path, to_json(evaluation))
    except OSError as error:
        warnings.warn(
            f"the evaluation of {opened.name} was measured but not kept: {in_words(error)}", stacklevel=2
        )
        return None
    warn_of_other(opened, AUDIT)
    return opened.written(path)


def _make_room(path: Path, evaluation: ModelEvaluation) -> None:
    """Copy an evaluation of another text or another model to where it stays, and say so."""
    kept = load_evaluation(path)
    if kept is None or not (changed := _changed(kept, evaluation)):
        return
    write_text(path.with_name(PREVIOUS_EVALUATION), path.read_text(encoding="utf-8"))
    named = [f"{key} {getattr(kept, key)!r}" for key in changed if key in _SAME]
    there = ", ".join(named or [_SAME_WHERE_KNOWN[key] for key in changed])
    warnings.warn(
        f"{path} was of another text or another model ({there}); it is kept as {PREVIOUS_EVALUATION}, and every "
        "part of the evaluation that you want to see must be measured again on this text",
        stacklevel=3,
    )


def _changed(kept: ModelEvaluation, now: ModelEvaluation) -> list[str]:
    """What differs between two evaluations, of what makes them evaluations of one model on one text."""
    known = [key for key in _SAME_WHERE_KNOWN if getattr(kept, key) and getattr(now, key)]
    return [key for key in (*_SAME, *known) if getattr(kept, key) != getattr(now, key)]


def checkpoint_hash(path: Path) -> str | None:
    """Return the hash of the table of a checkpoint's files; None for what has no such table."""
    if not path.is_dir() or is_transformers_folder(path):
        return None
    tables = [table for name in (STATE, MANIFEST) if (table := model_folder(path) / name).is_file()]
    return sha256_of(tables[0])[:16] if tables else None


def _as_run(sections: Mapping[str, Any], model: LoopedTransformer) -> RunConfig:
    """What a model was trained as; where nothing says, a dense loss at its depth. Its sections are checked one by one:
    a folder that holds a model alone need not make a run."""
    kinds: dict[str, type[BaseModel]] = {
        "objective": ObjectiveConfig,
        "data": DataConfig,
        "training": TrainingConfig,
    }
    known: dict[str, Any] = {
        name: validated(kind, sections.get(name) or {}, f"{name} of {CONFIG}") for name, kind in kinds.items()
    }
    return RunConfig.model_construct(model=model.config, **known)


def run_sections(path: Path) -> dict[str, Any]:
    """Return what a run's or a model's config says, section by section; nothing of a model of others."""
    if not path.is_dir() or is_transformers_folder(path):
        return {}
    return read_yaml(model_folder(path) / CONFIG)


def tokens_trained(path: Path) -> int | None:
    """Return how many tokens a run was trained on; None where nothing says."""
    result = read_result(path)
    return None if result is None else result.tokens_trained
