"""Runs on the embedded corpus that take a second."""

from typing import Any

import pytest

from loopscope.config.recipes import recipe

OVER: dict[str, Any] = {
    "model": {"dim": 16, "heads": 2, "layers": 1, "loops": 2, "vocabulary": 64, "sequence": 16},
    "data": {"max_bytes": 40_000, "max_validation_bytes": 3_000, "tokenizer": {"vocabulary": 64}},
    "training": {
        "steps": 3,
        "batch": 4,
        "log_every": 1,
        "final_windows": 8,
        "precision": "fp32",
        "threads": 1,
        "monitor_every": 0,
    },
}

TINY: dict[str, Any] = {
    "model": {"dim": 16, "heads": 2, "layers": 1, "loops": 2, "vocabulary": 64, "sequence": 16},
    "data": {
        "max_bytes": 60_000,
        "max_validation_bytes": 4_000,
        "tokenizer": {"kind": "word", "vocabulary": 64},
    },
    "training": {
        "steps": 4,
        "batch": 4,
        "log_every": 1,
        "evaluate_every": 2,
        "evaluate_windows": 8,
        "checkpoint_every": 2,
        "precision": "fp32",
        "threads": 1,
    },
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One token cache for all tests here."""
    patch = pytest.MonkeyPatch()
    patch.setenv("LOOPSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def tiny(condition: str = "dense/rmsnorm", **sections: dict[str, Any]) -> Any:
    over = {name: {**values, **sections.get(name, {})} for name, values in TINY.items()}
    return recipe("laptop", condition, over)
