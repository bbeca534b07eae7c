"""What lies where in a run's and in a study's folder. The one owner of these names, and of writing whole files."""

import os
from pathlib import Path

CONFIG = "config.yaml"
RESULT = "result.json"
METRICS = "metrics.jsonl"
AUDIT = "audit.json"
WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
TOKENIZER = "tokenizer.json"
STUDY = "study.yaml"
RESULTS = "results.json"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    writing = path.with_name(f".{path.name}.writing")
    with writing.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(writing, path)
