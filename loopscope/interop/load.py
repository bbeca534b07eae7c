"""`loopscope.load`: one call for every kind of path that holds a looped model."""

from pathlib import Path

from loopscope.interop.huggingface.pretrained import is_transformers_folder, load_folder
from loopscope.interop.model_folder import load_model
from loopscope.interop.published import read_published
from loopscope.recurrence import AbstractLoopedLM
from loopscope.results.layout import model_folder


def load(path: str | Path, *, trust_remote_code: bool = False) -> AbstractLoopedLM:
    """Return the looped model at a path, in evaluation mode on the CPU. The path may be any of:

    - a run folder that training wrote (its newest checkpoint), or one checkpoint folder;
    - an exported or imported model folder (`config.yaml` and `model.safetensors`);
    - a published `last.pt`;
    - a folder that transformers wrote (`config.json` and safetensors) of a family that `adapt` knows.

    Args:
        trust_remote_code: run the code that such a folder brings, where its family is not in transformers.

    Raises:
        ValueError: nothing to load there; says what was looked for.
    """
    path = Path(path)
    if path.is_file():
        return read_published(path).model
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a run folder, a model folder or a published last.pt")
    if is_transformers_folder(path):
        return load_folder(path, trust_remote_code)
    return load_model(model_folder(path))
