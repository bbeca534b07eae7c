"""Runs on the embedded corpus that take a second."""

from typing import Any

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
