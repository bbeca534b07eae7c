"""Named sizes: what is trained and on what, as functions that change a base config and nothing else."""

from collections.abc import Callable, Mapping

from loopscope.config.families import FAMILY_SIZES, Change
from loopscope.config.known_names import known
from loopscope.config.nested import merged
from loopscope.config.parameter_counts import COUNT_BATCH, parameters_named, shape_of

DEFAULT_SIZE = "small"
"""What is trained where no size is named: made for a first run, also on text of one's own."""


def _small() -> Change:
    """The laptop's model as one would train it oneself: weights that start small, and a tokenizer that loses nothing.

    From the published start (embeddings from N(0, 1), which the head is too) a first loss is several times that of
    guessing, and hundreds of steps go into mending it.
    """
    return merged(
        _laptop(),
        {
            "model": {"initialisation": "scaled"},
            "data": {"tokenizer": {"kind": "bpe"}},
            "training": {"steps": 200, "decay": "matrices", "evaluate_every": 50, "checkpoint_every": 50},
        },
    )


def _laptop() -> Change:
    """1.07M parameters: the paper's whole phenomenon within about 100 steps on two CPU cores, from its own start."""
    return {
        "model": {
            "dim": 128,
            "layers": 2,
            "heads": 4,
            "loops": 4,
            "vocabulary": 4096,
            "sequence": 128,
            "initialisation": "published",
        },
        "data": {
            "corpus": "stdlib",
            "max_bytes": 8_000_000,
            "max_validation_bytes": 300_000,
            "tokenizer": {"kind": "word", "vocabulary": 4096},
        },
        "training": {
            "steps": 120,
            "batch": 16,
            "learning_rate": 1e-3,
            "decay": "published",
            "evaluate_every": 40,
            "evaluate_windows": 128,
            "checkpoint_every": 40,
        },
    }


def _published(dim: int, layers: int, heads: int, batch: int) -> Change:
    """The paper's architecture and hyperparameters (Sharma and Vu, arXiv 2606.24898)."""
    return {
        "model": {
            "dim": dim,
            "layers": layers,
            "heads": heads,
            "loops": 4,
            "vocabulary": 20_000,
            "sequence": 256,
            "dropout": 0.1,
            "initialisation": "published",
        },
        "data": {
            "corpus": "wikitext-103",
            "stride": 128,
            "tokenizer": {"kind": "word", "vocabulary": 20_000, "min_count": 2},
        },
        "training": {
            "steps": None,
            "epochs": 4,
            "batch": batch,
            "learning_rate": 3e-4,
            "schedule": "constant",
            "weight_decay": 0.01,
            "decay": "published",
            "clip": 1.0,
            "precision": "bf16",
            "log_every": 50,
            "evaluate_every": 1000,
            "evaluate_windows": 512,
            "checkpoint_every": 1000,
        },
    }


SIZES: Mapping[str, Callable[[], Change]] = {
    "small": _small,
    "laptop": _laptop,
    "published-44m": lambda: _published(dim=512, layers=8, heads=8, batch=64),
    "published-129m": lambda: _published(dim=768, layers=12, heads=12, batch=32),
    **FAMILY_SIZES,
}


def size_change(name: str) -> Change:
    """Return what a size sets: a named one, or the published architecture scaled to a count (`1.4b`, `350m`).

    Raises:
        ValueError: a name that is neither, with the nearest one, or a count that no scaled model comes near.
    """
    if name not in SIZES and (count := parameters_named(name)) is not None:
        dim, layers = shape_of(count)
        return _published(dim=dim, layers=layers, heads=dim // 64, batch=COUNT_BATCH)
    return SIZES[known("size", name, SIZES)]()


def is_size(name: str) -> bool:
    """Return whether a name is a size's, or a count's that a model can be scaled to."""
    try:
        size_change(name)
    except ValueError:
        return False
    return True
