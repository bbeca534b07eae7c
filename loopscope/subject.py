"""What an audit is run on: from a path to a model, its own objective, and tokens in its own vocabulary.

A path is a run folder, a study folder (its first seed of every condition), a model folder or a published
`last.pt`. Runs and published checkpoints know their objective; a run knows its validation tokens too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from loopscope.config import problems, read_yaml
from loopscope.data.config import DataConfig
from loopscope.data.corpora import build_corpus, capped
from loopscope.data.source import open_data
from loopscope.data.tokenizers import AbstractTokenizer, ByteTokenizer, WordTokenizer, load_tokenizer
from loopscope.interop.load import load, model_folder
from loopscope.interop.published import read_published
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.recurrence import AbstractLoopedLM

TEXT_BYTES = 2_000_000
"""Text that is read to cut windows from: enough for hundreds, spread over it."""


@dataclass(frozen=True)
class Subject:
    """One model to audit."""

    name: str
    path: Path
    model: AbstractLoopedLM
    objective: ObjectiveConfig | None  # its own; None where nothing says
    tokenizer: AbstractTokenizer | None
    data: DataConfig | None  # of a run


@dataclass(frozen=True)
class Probe:
    """The tokens an audit measures on."""

    input_ids: Tensor
    labels: Tensor
    text: str  # what they are, in words


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


def probe(subject: Subject, data: str | None, sequences: int, length: int | None) -> Probe:
    """Tokens to audit on: `sequences` windows of `length` tokens, spread evenly.

    Args:
        data: text files (a path or a glob), `stdlib`, a Hugging Face dataset's name, or a `.safetensors` with
            `input_ids` and, optionally, `labels`; None takes the run's validation tokens, else `stdlib`.
        length: tokens of a window; None takes the trained length, at most 256.
    """
    config = getattr(subject.model, "config", None)
    trained = getattr(config, "sequence", 256)
    if length is None:
        length = min(trained, 256)
    if data is not None and data.endswith(".safetensors"):
        return _token_file(Path(data), sequences)
    if data is None and subject.data is not None:
        try:
            found = open_data(subject.data, progress=True).validation_windows(length)
            ids, labels = next(found.sequential(sequences, sequences))
            return Probe(ids, labels, subject.data.title.replace("text", "tokens"))
        except ValueError as error:
            note = f"the run's own corpus cannot be read here ({error})"
            return _text(subject, "stdlib", sequences, length, f"; {note}")
    return _text(subject, data or "stdlib", sequences, length, "")


def _text(subject: Subject, data: str, sequences: int, length: int, note: str) -> Probe:
    tokenizer = subject.tokenizer
    if tokenizer is None:
        config = getattr(subject.model, "config", None)
        if getattr(config, "vocabulary", 0) < 256:
            raise ValueError(
                f"{subject.path} has no tokenizer.json; give tokens instead: --data tokens.safetensors with "
                "input_ids [batch, seq] and, optionally, labels"
            )
        tokenizer, note = ByteTokenizer(), f"{note}; as bytes, because the model has no tokenizer"
    is_name = data == "stdlib" or not (Path(data).exists() or looks_like_files(data))
    try:
        corpus = build_corpus(
            DataConfig(corpus=data) if is_name else DataConfig(corpus="files", files=(data,))
        )
    except ValueError as error:
        raise ValueError(
            f"data is {data!r}: {error}. Give text files (a path or a glob), stdlib, a .safetensors with input_ids, or "
            "the name of a Hugging Face dataset (owner/name)"
        ) from error
    pieces: Iterator[str] = corpus.validation() if is_name else _whole(corpus)
    ids = np.concatenate([*tokenizer.encode_stream(capped(pieces, TEXT_BYTES)), np.zeros(0, np.uint32)])
    if len(ids) < length + 1:
        raise ValueError(
            f"{data} has {len(ids)} tokens, shorter than one window of {length} and the token after it; use "
            "more text or a smaller --length"
        )
    windows = (len(ids) - 1) // length
    count = min(sequences, windows)
    starts = np.arange(count) * windows // count * length
    tokens = torch.from_numpy(ids[starts[:, None] + np.arange(length + 1)].astype(np.int64))
    unknown = ""
    if isinstance(tokenizer, WordTokenizer) and (share := float((tokens == 3).float().mean())) > 0.2:
        unknown = f"; {share:.0%} of them unknown to its vocabulary, so losses here say little"
    return Probe(tokens[:, :-1], tokens[:, 1:], f"text of {data}{note}{unknown}")


def looks_like_files(data: str) -> bool:
    """Whether a text's name is a path or a glob, rather than a dataset's: `name` or `owner/name`."""
    sign = any(sign in data for sign in "*?~\\") or data.startswith((".", "/"))
    return sign or data.count("/") > 1 or Path(data).suffix[1:].isalpha()


def _whole(corpus: Any) -> Iterator[str]:
    """Files given to an audit are not split: all of their text, training part first."""
    yield from corpus.train()
    yield "\n\n"
    yield from corpus.validation()


def _token_file(path: Path, sequences: int) -> Probe:
    if not path.is_file():
        raise ValueError(f"data is {path}, which does not exist")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if "input_ids" not in tensors:
        raise ValueError(
            f"{path} has {', '.join(tensors) or 'no tensors'}; an audit needs input_ids [batch, seq]"
        )
    ids = tensors["input_ids"][:sequences]
    if "labels" in tensors:
        return Probe(ids, tensors["labels"][:sequences], f"tokens of {path.name}")
    if ids.ndim != 2 or ids.shape[1] < 2:
        raise ValueError(
            f"input_ids of {path} have shape {tuple(ids.shape)}; give [batch, seq], seq of 2 or more"
        )
    return Probe(ids[:, :-1], ids[:, 1:], f"tokens of {path.name}")


def read_objective(values: Any, source: Path | str) -> ObjectiveConfig:
    """An objective from plain values.

    Raises:
        ValueError: names the source, and each key that does not fit.
    """
    try:
        return ObjectiveConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{source}: {'; '.join(problems(error, ObjectiveConfig))}") from None


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
