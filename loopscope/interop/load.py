"""`loopscope.load`: one call for every kind of path that holds a looped model."""

import warnings
from pathlib import Path

from loopscope.interop.huggingface.hub import is_hub_name
from loopscope.interop.huggingface.loading import LoadedType, Loading, chosen_loading
from loopscope.interop.huggingface.pretrained import is_transformers_folder, load_folder
from loopscope.interop.model_folder import load_model
from loopscope.interop.published import read_published
from loopscope.numerics import not_finite
from loopscope.recurrence import AbstractLoopedLM
from loopscope.results.checkpoints import model_folder


def load(
    path: str | Path,
    *,
    trust_remote_code: bool = False,
    dtype: LoadedType | None = None,
    device_map: str | None = None,
) -> AbstractLoopedLM:
    """Return the looped model at a path, in evaluation mode on the CPU. The path may be any of:

    - a run folder that training wrote (its newest whole checkpoint), or one checkpoint folder, as that of
      `loopscope.results.best_checkpoint(RUN)`;
    - an exported or imported model folder (`config.yaml` and `model.safetensors`);
    - a published `last.pt`;
    - a folder that transformers wrote (`config.json` and safetensors) of a family that `adapt` knows, or the
      name of such a model on the hub (`owner/name`), where there is no folder of that name.

    Args:
        trust_remote_code: run the code that such a folder brings, where its family is not in transformers.
        dtype: type of the weights of such a folder in memory: auto (as stored), float32, bfloat16.
        device_map: where its parts go, as transformers takes it (`auto`, `cuda:0`, JSON); accelerate places them.

    Warns of weights that are not finite, by name: a model that diverged can be looked at.

    Raises:
        ValueError: nothing to load there; says what was looked for.
    """
    model = _loaded(Path(path), trust_remote_code, dtype, device_map)
    tell_unfit(model, path)
    return model


def tell_unfit(model: AbstractLoopedLM, path: str | Path) -> None:
    """Warn of weights that are not finite, by name."""
    if (unfit := not_finite(model.named_parameters())) is not None:
        warnings.warn(f"{path}: {unfit}: the model has diverged, or is damaged", stacklevel=3)


def _loaded(
    path: Path, trust_remote_code: bool, dtype: LoadedType | None, device_map: str | None
) -> AbstractLoopedLM:
    asked = dtype is not None or device_map is not None
    how = Loading(dtype or "auto", device_map) if asked else chosen_loading()
    if is_hub_name(path) or is_transformers_folder(path):
        return load_folder(path, trust_remote_code, how)
    if how != Loading():
        raise ValueError(
            f"dtype and device-map say how folders of transformers are loaded, and {path} is none; leave them out"
        )
    if path.is_file():
        return read_published(path).model
    if not path.exists():
        raise ValueError(f"{path} does not exist; give a run folder, a model folder or a published last.pt")
    return load_model(model_folder(path))
