"""Loopscope's own model folder: weights, config and tokenizer, nothing that runs code when read.

A folder holds `config.yaml` (its `model` section builds the model), `model.safetensors` and, where known,
`tokenizer.json`; and `manifest.json` with their hashes, which reading holds them against. A training checkpoint is such
a folder with the optimizer's state beside, and its hashes in `state.json`. One put together by hand needs no hashes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from loopscope.model.config import ModelConfig
from loopscope.model.config.yaml_reader import plain_yaml_file
from loopscope.model.looped import LoopedTransformer
from loopscope.results.layout import CONFIG, MANIFEST, WEIGHTS, write_text
from loopscope.results.manifest import check_files, table_of
from loopscope.results.tensor_file import read_tensors, write_tensors
from loopscope.results.tied_weights import tie_problem
from loopscope.results.whole_folder import whole_folder


def save_model(
    model: LoopedTransformer, directory: str | Path, sections: Mapping[str, Any], files: Mapping[str, str]
) -> None:
    """Write a model folder that `load_model` and `loopscope.load` read, whole or not at all.

    In it: config.yaml, model.safetensors, further files, and the hashes of all of them.

    Args:
        directory: created; must be empty or absent.
        sections: further sections of config.yaml (the objective, say).
        files: further text files by name (the tokenizer).

    Raises:
        ValueError: the folder exists and is not empty.
        OSError: it cannot be written; nothing of it is left.
    """
    config = {"model": model.config.model_dump(mode="json"), **sections}
    with whole_folder(directory) as writing:
        for name, text in {**files, CONFIG: yaml.safe_dump(config, sort_keys=False)}.items():
            (writing / name).write_text(text, encoding="utf-8")
        write_tensors(model.state_dict(), writing / WEIGHTS)
        write_text(writing / MANIFEST, table_of(writing))


def load_model(directory: str | Path) -> LoopedTransformer:
    """Build and return the model of a folder that `save_model` or a training checkpoint wrote, in evaluation mode.

    Raises:
        ValueError: a file is missing, cut short, changed after it was written, or does not fit the config; says which
            and what to do.
    """
    directory = Path(directory)
    check_files(directory)
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
    state = read_tensors(path)
    check_state(model, state, path)
    model.load_state_dict(state)
    return model.eval()


def read_config(directory: str | Path) -> dict[str, Any]:
    """Return the sections of a model folder's config.yaml, unvalidated.

    Raises:
        ValueError: missing, not YAML, or not a mapping.
    """
    path = Path(directory) / CONFIG
    if not path.is_file():
        raise ValueError(f"{path} is missing; {directory} is not a model folder")
    sections = plain_yaml_file(path)
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
    if problem := tie_problem(state, model.state_dict(), {}, {}):
        raise ValueError(f"{source} {problem}")
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
