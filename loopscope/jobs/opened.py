"""From a path to a model with what it knows of itself: its objective, its tokenizer, its data.

A path is a run folder, a model folder, a published `last.pt`, or a folder of transformers. Runs and published
checkpoints know their objective; a run knows its validation text too.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from loopscope import renamed
from loopscope.config.nested import read_yaml, validated
from loopscope.config.objective_text import read_objective
from loopscope.data.config import DataConfig
from loopscope.data.tokenizers import AbstractTokenizer, WordTokenizer, load_tokenizer
from loopscope.data.tokenizers.file import FileTokenizer
from loopscope.interop.huggingface.export.exported_folder import export_settings, is_export
from loopscope.interop.huggingface.hub import SETTING_FILES, WEIGHT_FILES, hub_folder, is_hub_name
from loopscope.interop.huggingface.loading import load_with as load_with
from loopscope.interop.huggingface.pretrained import is_transformers_folder
from loopscope.interop.huggingface.remote_code import allow_remote_code as allow_remote_code
from loopscope.interop.load import load, tell_unfit
from loopscope.interop.published import read_published
from loopscope.interop.working_depth import set_depth
from loopscope.jobs.folder import check_checkpoint
from loopscope.model.looped import LoopedTransformer
from loopscope.objectives.config import ObjectiveConfig
from loopscope.recurrence import AbstractLoopedLM, check_loops
from loopscope.results.checkpoints import model_folder
from loopscope.results.fingerprint import model_fingerprint
from loopscope.results.layout import CONFIG, TOKENIZER


@dataclass(frozen=True)
class OpenedModel:
    """A model, and what its folder or file says of it."""

    name: str
    path: Path
    model: AbstractLoopedLM
    objective: ObjectiveConfig | None  # its own; None where nothing says
    tokenizer: AbstractTokenizer | None
    data: DataConfig | None  # of a run
    records: Path | None = None  # where what is measured of it is kept; None: beside it
    at_trained_depth: bool = True
    fingerprint: str | None = None  # of a folder of transformers: which settings and weights

    @property
    def kept_at(self) -> Path:
        """The folder in which what is measured of it is kept."""
        return self.records or self.path

    @property
    def keeps(self) -> bool:
        """Whether records may go there: those of another depth than the trained one are no record of the model."""
        return self.at_trained_depth or self.records is not None

    def written(self, file: Path) -> Path:
        """Say where a record went, where that is nowhere that Loopscope wrote before; return it."""
        if self.records is None and is_transformers_folder(self.path):
            warnings.warn(f"kept in {file}; loopscope report {self.path} shows it", stacklevel=3)
        return file


def open_model(path: str | Path, keep_in: str | Path | None = None, loops: int | None = None) -> OpenedModel:
    """Load a model with what it knows of itself.

    Args:
        keep_in: the folder in which what is measured of it is kept, made where it is not there; None: beside it.
        loops: the depth that it runs at instead of its trained one. What is measured there is kept in `keep_in` alone.

    Raises:
        ValueError: nothing to load there, or damaged; says which file and what to do. A depth that it cannot run at.
    """
    folder = records_folder(keep_in)
    if loops is not None:
        check_loops(loops)
    opened = _opened(Path(path))
    if loops not in (None, opened.model.loops):
        try:
            set_depth(opened.model, loops)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        opened = replace(opened, name=f"{opened.name} at {loops} loops", at_trained_depth=False)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return replace(opened, records=folder)


def records_folder(keep_in: str | Path | None) -> Path | None:
    """Return the folder in which records are to be kept; None: beside what they are of.

    Raises:
        ValueError: it is a file.
    """
    folder = None if keep_in is None else Path(keep_in)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"keep-in is {folder}, a file; name a folder")
    return folder


def _opened(path: Path) -> OpenedModel:
    if path.is_file():
        published = read_published(path)
        tell_unfit(published.model, path)
        try:
            tokenizer = WordTokenizer(published.itos, published.pattern) if published.itos else None
        except ValueError as error:
            raise ValueError(f"{path}: its tokenizer cannot be used: {error}") from None
        objective = read_objective(dict(published.objective), path)
        return OpenedModel(path.parent.name or path.name, path, published.model, objective, tokenizer, None)
    on_hub = is_hub_name(path)
    if on_hub or is_transformers_folder(path):
        file = (hub_folder(path, SETTING_FILES) if on_hub else path) / TOKENIZER
        known_words = FileTokenizer(file.read_text(encoding="utf-8")) if file.is_file() else None
        name = path.as_posix() if on_hub else path.resolve().name
        model = load(path)
        whole = hub_folder(path, (*SETTING_FILES, *WEIGHT_FILES)) if on_hub else path
        if is_export(whole):
            return _of_export(path, whole, model, known_words)
        return OpenedModel(name, path, model, None, known_words, None, fingerprint=model_fingerprint(whole))
    check_checkpoint(path)
    model = load(path)
    folder = model_folder(path)
    sections = read_yaml(folder / CONFIG)
    known = folder / TOKENIZER
    return OpenedModel(
        name=_name(path, sections),
        path=path,
        model=model,
        objective=read_objective(sections["objective"], f"objective of {path}")
        if sections.get("objective")
        else None,
        tokenizer=load_tokenizer(known) if known.is_file() else None,
        data=validated(DataConfig, sections["data"], f"data of {folder / CONFIG}")
        if sections.get("data")
        else None,
    )


def _of_export(
    path: Path, folder: Path, model: AbstractLoopedLM, words: AbstractTokenizer | None
) -> OpenedModel:
    """An export, with its run's name and objective. Its text is whoever's: what it was trained on may be elsewhere."""
    settings = export_settings(folder)
    trained = settings.get("trained") or {}
    said = trained.get("objective")
    objective = read_objective(said, f"objective of {folder}") if said else None
    name = str(trained.get("name") or path.resolve().name)
    return OpenedModel(name, path, model, objective, words, None, fingerprint=model_fingerprint(folder))


def check_one(paths: Sequence[str | Path], keep_in: str | Path | None) -> None:
    """Raise ValueError where one folder is to keep what is measured of several models."""
    if keep_in is not None and len(paths) > 1:
        raise ValueError(
            f"keep-in is {keep_in}, one folder for {len(paths)} models, and each would write over the one before; "
            "measure one at a time"
        )


def config_setting(opened: OpenedModel, own: str, foreign: str) -> int | None:
    """Return a number in the model's config, by its name here and in transformers; None where it says none."""
    if (config := getattr(opened.model, "config", None)) is not None:
        value = getattr(config, own, None)
    else:
        value = getattr(getattr(getattr(opened.model, "module", None), "config", None), foreign, None)
    return value if isinstance(value, int) else None


def _name(path: Path, sections: dict[str, Any]) -> str:
    condition = sections.get("condition")
    if not condition:
        return path.resolve().name
    training = sections.get("training")
    seed = training.get("seed") if isinstance(training, dict) else None
    return str(condition) if seed in (None, 0) else f"{condition}, seed {seed}"


def token_texts(opened: OpenedModel, ids: Sequence[int]) -> dict[str, str]:
    """Text of some token ids, where the tokenizer is known."""
    if opened.tokenizer is None:
        return {}
    return {str(token): opened.tokenizer.decode([token]) for token in islice(dict.fromkeys(ids), 200)}


def parameter_count(model: AbstractLoopedLM) -> int:
    """All trained numbers of a model."""
    if isinstance(model, LoopedTransformer):
        return model.parameter_count()
    return sum(parameter.numel() for parameter in model.parameters())


def __getattr__(name: str) -> Any:
    if name == "open_subject":
        return renamed("loopscope.jobs.open_subject", "loopscope.jobs.open_model", removed_in="0.3.0")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
