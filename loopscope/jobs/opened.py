"""What an audit is run on: from a path to a model, its own objective, and tokens in its own vocabulary.

A path is a run folder, a study folder (its first seed of every condition), a model folder or a published
`last.pt`. Runs and published checkpoints know their objective; a run knows its validation tokens too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from loopscope.config.nested import read_yaml
from loopscope.config.objective_text import read_objective
from loopscope.data.config import DataConfig
from loopscope.data.tokenizers import AbstractTokenizer, WordTokenizer, load_tokenizer
from loopscope.interop.load import load, model_folder
from loopscope.interop.published import read_published
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.recurrence import AbstractLoopedLM


@dataclass(frozen=True)
class Subject:
    """One model to audit."""

    name: str
    path: Path
    model: AbstractLoopedLM
    objective: ObjectiveConfig | None  # its own; None where nothing says
    tokenizer: AbstractTokenizer | None
    data: DataConfig | None  # of a run


def find_subjects(path: Path) -> list[Path]:
    """The path itself, or the first seed of every condition of a study folder."""
    if not path.is_dir() or not (path / "study.yaml").is_file():
        return [path]
    firsts: dict[Path, Path] = {}
    for checkpoints in sorted(path.glob("*/seed-*/checkpoints")):
        run = checkpoints.parent
        seed = int(run.name.removeprefix("seed-"))
        known = firsts.get(run.parent)
        if known is None or seed < int(known.name.removeprefix("seed-")):
            firsts[run.parent] = run
    if not firsts:
        raise ValueError(f"{path} is a study without a single checkpoint; train it first, or name a run")
    return list(firsts.values())


def open_subject(path: Path) -> Subject:
    """Load a model with what it knows of itself.

    Raises:
        ValueError: nothing to load there, or damaged; says which file and what to do.
    """
    if path.is_file():
        published = read_published(path)
        tokenizer = WordTokenizer(published.itos, published.pattern) if published.itos else None
        objective = read_objective(dict(published.objective), path)
        return Subject(path.parent.name or path.name, path, published.model, objective, tokenizer, None)
    model = load(path)
    folder = model_folder(path)
    sections = read_yaml(folder / "config.yaml")
    known = folder / "tokenizer.json"
    return Subject(
        name=_name(path, sections),
        path=path,
        model=model,
        objective=read_objective(sections["objective"], f"objective of {path}")
        if sections.get("objective")
        else None,
        tokenizer=load_tokenizer(known) if known.is_file() else None,
        data=DataConfig.model_validate(sections["data"]) if sections.get("data") else None,
    )


def _name(path: Path, sections: dict[str, Any]) -> str:
    condition = sections.get("condition")
    if not condition:
        return path.resolve().name
    seed = (sections.get("training") or {}).get("seed")
    return str(condition) if seed in (None, 0) else f"{condition}, seed {seed}"


def token_texts(subject: Subject, ids: Sequence[int]) -> dict[str, str]:
    """Text of some token ids, where the tokenizer is known."""
    if subject.tokenizer is None:
        return {}
    return {str(token): subject.tokenizer.decode([token]) for token in islice(dict.fromkeys(ids), 200)}


def parameter_count(model: AbstractLoopedLM) -> int:
    """All trained numbers of a model."""
    if isinstance(model, LoopedTransformer):
        return model.parameter_count()
    return sum(parameter.numel() for parameter in model.parameters())
