"""Starting a run from weights of another: fine-tuning, or a gate's second stage on a trained model."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from loopscope.numerics import not_finite
from loopscope.results.checkpoints import whole_checkpoint
from loopscope.results.layout import CHECKPOINTS, TOKENIZER, WEIGHTS, has_weights
from loopscope.results.manifest import check_files
from loopscope.results.tensor_file import read_tensors
from loopscope.results.tied_weights import tie_problem, ties_of

NEW = ("gate.",)
"""Parameters that may be missing there and keep their own start: a gate can be added to a trained model."""
POSITIONS = "position_embedding.weight"
"""One row per learned position, which a shorter window has the first of."""


def load_weights(model: nn.Module, source: str, tokenizer: str | None = None) -> None:
    """Copy weights from a run folder (its newest checkpoint), a checkpoint or a model folder.

    Of learned positions a model with a shorter `sequence` takes the first rows: it then gives the logits of the whole.

    Args:
        tokenizer: contents of this run's `tokenizer.json`; a folder that has another one is refused.

    Raises:
        ValueError: nothing to load there, a checkpoint that was changed after it was written, ids that mean
            other words, tensors that do not fit, named with both shapes, or numbers that are not finite.
    """
    folder = Path(source).expanduser()
    if not has_weights(folder):
        checkpoint = whole_checkpoint(folder)
        if checkpoint is None:
            raise ValueError(
                f"training.weights {source!r} holds neither {WEIGHTS} nor {CHECKPOINTS}; give a run or model folder"
            )
        folder = checkpoint
    check_files(folder)
    if tokenizer is not None and (folder / TOKENIZER).is_file():
        _check_tokenizer(folder / TOKENIZER, tokenizer)
    here = model.state_dict()
    there = _first_positions(read_tensors(folder / WEIGHTS), here)
    missing = [name for name in here if name not in there and not name.startswith(NEW)]
    unknown = [name for name in there if name not in here]
    differ = [
        f"{name} is {tuple(there[name].shape)} there, {tuple(here[name].shape)} here{_cure(name, there, here)}"
        for name in there.keys() & here.keys()
        if there[name].shape != here[name].shape
    ]
    if problem := tie_problem(there, here, {}, ties_of(here)):
        raise ValueError(f"{folder / WEIGHTS} {problem}")
    problems = (
        [f"missing {name}" for name in missing] + [f"unknown {name}" for name in unknown] + sorted(differ)
    )
    if problems:
        count = "1 difference" if len(problems) == 1 else f"{len(problems)} differences"
        raise ValueError(f"{folder / WEIGHTS} does not fit this model ({count}): {'; '.join(problems[:5])}")
    if (unfit := not_finite(there.items())) is not None:
        raise ValueError(
            f"{folder / WEIGHTS}: {unfit}; nothing can be trained from there. Give other weights"
        )
    model.load_state_dict(there, strict=False)


def _first_positions(there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors there, with no more learned positions than are here."""
    found = dict(there)
    if POSITIONS in there and POSITIONS in here and there[POSITIONS].shape[1:] == here[POSITIONS].shape[1:]:
        found[POSITIONS] = there[POSITIONS][: len(here[POSITIONS])]
    return found


def _cure(name: str, there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> str:
    """What to do about a shape, where one setting decides on it."""
    longer = name == POSITIONS and there[name].shape[1:] == here[name].shape[1:]
    return f" (no position was learned beyond: set model.sequence: {len(there[name])})" if longer else ""


def _check_tokenizer(path: Path, here: str) -> None:
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); restore it") from error
    own = json.loads(here)
    # A folder may have a tokenizer of the Hugging Face format as it came, which a run keeps under its kind.
    if there not in (own, own.get("tokenizer") if own.get("kind") == "file" else own):
        raise ValueError(
            f"{path} differs from this run's tokenizer, so the weights would take its ids for other words; set data "
            "as the run of those weights had it (its config says how), or data.tokenizer to the file it used"
        )
