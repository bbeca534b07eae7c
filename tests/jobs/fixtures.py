"""Runs on the embedded corpus that take a second."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscope.config.recipes import recipe
from loopscope.data.tokenizers import ByteTokenizer
from loopscope.interop.model_folder import save_model
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer

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


PAIR = ["dense/rmsnorm", "dense/raw"]


def odd_variants(folder: Path) -> dict[str, Any]:
    """One that diverges, and one that fails: the weights that it begins with are not there."""
    return {
        "nan": {"training": {"learning_rate": 1e30}},
        "broken": {"training": {"weights": str(folder / "nowhere")}},
    }


def trained_steps(run: Path) -> list[int]:
    """Steps that a run's metrics have a training record of, in the order of the file; none where it is not there."""
    if not (run / "metrics.jsonl").is_file():
        return []
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if record["kind"] == "train"]


def wait_for(done: Callable[[], Any]) -> Any:
    """What `done` returns once that is something, within a minute."""
    for _ in range(1200):
        if found := done():
            return found
        time.sleep(0.05)
    raise AssertionError("nothing came of it in a minute")


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


def byte_model(**changes: Any) -> LoopedTransformer:
    """A small model of bytes whose texts do not repeat one token."""
    torch.manual_seed(0)
    settings = {"dim": 32, "layers": 1, "loops": 3, "vocabulary": 300, "sequence": 40, "tied": False}
    model = LoopedTransformer(ModelConfig(**settings | {"initialisation": "published"} | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def byte_folder(path: Path) -> Path:
    """A folder of that model, with its tokenizer."""
    save_model(byte_model(), path, {}, {"tokenizer.json": ByteTokenizer().to_text()})
    return path
