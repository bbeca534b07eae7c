"""Packages that not everybody needs, by the extra of `pip install` that brings them; and the sentence that says so.

Standard library only: asking for a package loads nothing.
"""

import importlib.util
from collections.abc import Sequence

EXTRAS: dict[str, tuple[str, ...]] = {
    "data": ("datasets", "pyarrow"),
    "eval": ("lm_eval",),
    "hf": ("accelerate",),
    "log": ("tensorboard", "trackio", "wandb"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "slurm": ("submitit",),
}
"""What each extra of pyproject.toml brings that is imported here: of `docs`, `dev` and `int8` nothing is."""


def require(what: str, *packages: str) -> None:
    """Refuse what needs a package that is not installed, and say how it is installed.

    Args:
        what: what was asked for, as the subject of a sentence: `corpus 'owner/name'`.
        packages: as they are imported, of `EXTRAS`; none of them is loaded.

    Raises:
        ValueError: one of them is missing.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(needed(what, missing))


def needed(what: str, packages: Sequence[str], error: Exception | None = None) -> str:
    """Return the sentence that says which extra brings these packages.

    Args:
        error: what importing them gave, where they are there and cannot be used.
    """
    extras = dict.fromkeys(extra for extra, brought in EXTRAS.items() if set(packages) & set(brought))
    which, are = " and ".join(packages), "is" if len(packages) == 1 else "are"
    fault = f"{are} not installed" if error is None else f"cannot be imported ({error})"
    return f"{what} needs {which}, which {fault}: pip install 'loopscope[{','.join(extras)}]'"


def is_installed(extra: str) -> bool:
    """Return whether all that an extra brings is there."""
    return all(importlib.util.find_spec(package) is not None for package in EXTRAS[extra])
