"""Loopscope's own model folder: weights, config and tokenizer, nothing that runs code when read.

A folder holds `config.yaml` (its `model` section builds the model), `model.safetensors` and, where known,
`tokenizer.json`. A training checkpoint is such a folder with the optimizer's state beside.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.results.layout import CONFIG, WEIGHTS, write_text


def save_model(
    model: LoopedTransformer, directory: str | Path, sections: Mapping[str, Any], files: Mapping[str, str]
) -> None:
    """Write a model folder that `load_model` and `loopscope.load` read: config.yaml, model.safetensors, further files.

    Args:
        directory: created; must be empty or absent.
        sections: further sections of config.yaml (the objective, say).
        files: further text files by name (the tokenizer).

    Raises:
        ValueError: the folder exists and is not empty.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} exists and is not empty; name a new folder, nothing was written")
    directory.mkdir(parents=True, exist_ok=True)
    config = {"model": model.config.model_dump(mode="json"), **sections}
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, directory / WEIGHTS)
    # Last, because its presence is what makes the folder a model.
    write_text(directory / CONFIG, yaml.safe_dump(config, sort_keys=False))


def load_model(directory: str | Path) -> LoopedTransformer:
    """Build and return the model of a folder that `save_model` or a training checkpoint wrote, in evaluation mode.

    Raises:
        ValueError: a file is missing, cut short, or does not fit the config; says which and what to do.
    """
    directory = Path(directory)
    sections = read_config(directory)
    try:
        config = ModelConfig(**sections["model"])
    except (KeyError, TypeError, ValidationError) as error:
        cause = (
            "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
            if isinstance(error, ValidationError)
            else error
        )
        raise ValueError(
            f"{directory / CONFIG} has no model section that this version reads: {cause}"
        ) from error
    model = LoopedTransformer(config)
    path = directory / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{path} is missing; the folder is not a complete model")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is cut short or damaged ({error}); restore it, or use another checkpoint"
        ) from error
    check_state(model, state, path)
    model.load_state_dict(state)
    return model.eval()


def read_config(directory: str | Path) -> dict[str, Any]:
    """Return the sections of a model folder's config.yaml, unvalidated.

    Raises:
        ValueError: missing, or not a mapping.
    """
    path = Path(directory) / CONFIG
    if not path.is_file():
        raise ValueError(f"{path} is missing; {directory} is not a model folder")
    sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(sections, dict):
        raise ValueError(f"{path} does not hold a mapping of sections")
    return sections


def check_state(model: LoopedTransformer, state: Mapping[str, Any], source: Path | str) -> None:
    """Refuse a state dict that does not fit a model.

    Args:
        source: what the message calls it.

    Raises:
        ValueError: names the first few tensors that are missing, unknown or of another shape.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    problems = [f"missing {name}" for name in expected.keys() - found.keys()]
    problems += [f"unknown {name}" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {found[name]}, the config says {expected[name]}"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        raise ValueError(f"{source} does not fit its config ({len(problems)} differences): {shown}")
