"""`loopscope.load`: one call for every kind of path that holds a looped model."""

from pathlib import Path

from loopscope.interop.model_folder import load_model
from loopscope.interop.published import read_published
from loopscope.recurrence import AbstractLoopedLM
from loopscope.results.layout import model_folder


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
