"""`loopscope.load`: one call for every kind of path that holds a looped model."""

from pathlib import Path

from loopscope.interop.model_folder import load_model
from loopscope.interop.published import read_published
from loopscope.recurrence import AbstractLoopedLM
from loopscope.results.layout import CONFIG, WEIGHTS


def load(path: str | Path) -> AbstractLoopedLM:
    """Return the looped model at a path, in evaluation mode on the CPU. The path may be any of:

    - a run folder that training wrote (its newest checkpoint), or one checkpoint folder;
    - an exported or imported model folder (`config.yaml` and `model.safetensors`);
    - a published `last.pt`.

    Raises:
        ValueError: nothing to load there; says what was looked for.
    """
    path = Path(path)
    if path.is_file():
        return read_published(path).model
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a run folder, a model folder or a published last.pt")
    return load_model(model_folder(path))


def model_folder(path: Path) -> Path:
    """The folder under `path` that holds weights: itself, or the newest checkpoint of a run."""
    if (path / WEIGHTS).is_file():
        return path
    checkpoints = sorted((path / "checkpoints").glob("step-*"))
    if checkpoints:
        return checkpoints[-1]
    runs = sorted(
        {str(found.parent.parent.relative_to(path)) for found in path.glob("*/**/checkpoints/step-*")}
    )
    hint = f" It holds runs; name one of them: {', '.join(runs[:6])}." if runs else ""
    raise ValueError(f"{path} holds no model: neither {CONFIG} with {WEIGHTS} nor checkpoints/step-*.{hint}")
