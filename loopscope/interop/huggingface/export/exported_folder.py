"""The folder of an export: written whole or not at all, and read back exactly.

config.json, model.safetensors, generation_config.json, two files of code; and whatever else is given: tokenizer, card.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loopscope.interop.huggingface.loading import without_bars
from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import variants_of
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import AbstractLoopedLM
from loopscope.results.fingerprint import CONFIG_FILE
from loopscope.results.layout import WEIGHTS
from loopscope.results.tensor_file import read_tensors
from loopscope.results.whole_folder import check_new_folder, whole_folder

EXPORT_TYPE = "loopscope"
"""`model_type` of an export. Equal to that of its own code, which imports transformers: a second or two."""
_PREFIX, _HEAD = "model.", "model.unembedding.weight"


def check_exportable(model: Any) -> LoopedTransformer:
    """Return a model if an export can hold it.

    Raises:
        ValueError: no model of Loopscope's own, or one with a part of the user's own: says which.
    """
    if not isinstance(model, LoopedTransformer) or type(model) is not LoopedTransformer:
        raise ValueError(
            f"model is a {type(model).__name__}; an export holds Loopscope's own LoopedTransformer. A folder of "
            "transformers is at home there already; a class of your own needs modeling code of its own"
        )
    own = [variant for variant in variants_of(model.config) if variant.name not in _shipped(variant.noun)]
    if own:
        raise ValueError(
            f"{own[0].noun} {own[0].name!r} is code of yours, and an export holds Loopscope's alone, so that it loads "
            "without either package. Export a model of shipped variants, or ship modeling code of your own"
        )
    return model


def write_export(
    model: AbstractLoopedLM,
    directory: str | Path,
    loops: int | None = None,
    trained: Mapping[str, Any] | None = None,
    token_ids: Mapping[str, int | None] | None = None,
    more: "Mapping[str, Any] | None" = None,
) -> Path:
    """Write a model as a folder that transformers loads with trust_remote_code, and Loopscope without.

    Args:
        directory: new, or empty.
        loops: how many loops run where no other number is asked for; None: the trained depth.
        trained: what config.json keeps of the run.
        token_ids: bos_token_id, eos_token_id, pad_token_id.
        more: further files: text by name, or objects with `save_pretrained` (a tokenizer) under any name.

    Raises:
        ValueError: a model that no export holds, or a folder that is not empty.
        OSError: it cannot be written; nothing of it is left.
    """
    from loopscope.interop.huggingface.export.exported_model import as_exported

    check, directory = check_exportable(model), check_new_folder(directory)
    exported = as_exported(check, loops, trained, token_ids)
    with whole_folder(directory) as writing:
        with without_bars():
            exported.save_pretrained(writing)
        for name, content in (more or {}).items():
            if isinstance(content, str):
                (writing / name).write_text(content, encoding="utf-8")
            else:
                content.save_pretrained(writing)
    return directory


def is_export(folder: str | Path) -> bool:
    """Return whether a folder holds an export, by its config.json."""
    path = Path(folder) / CONFIG_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and settings.get("model_type") == EXPORT_TYPE


def check_export(folder: str | Path) -> None:
    """Raise ValueError for a folder that holds no export: says how one is written."""
    if not is_export(folder):
        raise ValueError(
            f"{folder} is no export of Loopscope; write one first: loopscope export RUN {folder}"
        )


def export_settings(folder: str | Path) -> dict[str, Any]:
    """Return an export's config.json."""
    settings: dict[str, Any] = json.loads((Path(folder) / CONFIG_FILE).read_text(encoding="utf-8"))
    return settings


def read_export(folder: str | Path) -> LoopedTransformer:
    """Return the model of an export, in evaluation mode: the weights and settings that were exported, bit for bit.

    Its depth is the trained one, whatever `num_loops` says that transformers runs. None of the folder's code runs.

    Raises:
        ValueError: a file is missing, damaged, or does not fit the config; says which.
    """
    from loopscope.interop.model_folder import check_state

    folder = Path(folder)
    config = settings_of(export_settings(folder), folder / CONFIG_FILE)
    model = LoopedTransformer(config)
    state = {}
    for file in _weight_files(folder):
        state.update(read_tensors(file))
    if config.tied:
        state.pop(_HEAD, None)
    foreign = [name for name in state if not name.startswith(_PREFIX)]
    if foreign:
        raise ValueError(
            f"{folder} has weights of no export: {', '.join(sorted(foreign)[:5])}; merge adapters before saving, and "
            "save whole weights"
        )
    state = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
    check_state(model, state, folder)
    model.load_state_dict(state)
    return model.eval()


def settings_of(settings: Mapping[str, Any], source: Path) -> ModelConfig:
    """Return the settings of a model in an export's config.json.

    Raises:
        ValueError: none that this version reads.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when it was trained
            looped = dict(settings["looped"])
            looped["vocabulary"] = settings.get("vocab_size", looped["vocabulary"])
            looped["tied"] = settings.get("tie_word_embeddings", looped.get("tied", True))
            return ModelConfig(**looped)
    except (KeyError, TypeError, ValueError) as error:
        cause = (
            "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
            if isinstance(error, ValidationError)
            else repr(error)
        )
        raise ValueError(f"{source} has no `looped` section that this version reads: {cause}") from error


def _weight_files(folder: Path) -> list[Path]:
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        return [folder / WEIGHTS]
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{index} is no index of weights ({error}); restore it") from error
    return [folder / str(name) for name in sorted(shards)]


def _shipped(noun: str) -> set[str]:
    from loopscope.model.config.variants import CARRIES, INJECTIONS, READOUTS, STARTS

    return {
        name
        for names in (CARRIES, INJECTIONS, READOUTS, STARTS)
        if names.noun == noun
        for name in names.shipped
    }
