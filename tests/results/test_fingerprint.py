"""Fingerprints of folders of transformers: equal where model and settings are, whoever wrote them into which files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loopscope.results import model_fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two matrices and a vector in one file."""
    torch.manual_seed(0)
    weights = {"a": torch.randn(64, 65), "b": torch.randn(80, 80).bfloat16(), "c": torch.randn(5)}
    return written(tmp_path / "one", weights)


def written(folder: Path, *files: dict[str, torch.Tensor], **settings: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "dory", "transformers_version": "5.24.0", **settings})
    )
    for place, tensors in enumerate(files):
        save_file(tensors, folder / f"model-{place}.safetensors")
    return folder


def test_the_same_weights_in_other_files_are_the_same(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model-0.safetensors")
    shards = [{name: tensor} for name, tensor in reversed(weights.items())]
    again = written(tmp_path / "other", *shards, transformers_version="6.0.0")
    assert model_fingerprint(again) == model_fingerprint(folder) is not None


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_one_changed_tensor_is_another_model(folder: Path, tmp_path: Path, name: str) -> None:
    weights = load_file(folder / "model-0.safetensors")
    weights[name] = weights[name] * 1.01
    assert model_fingerprint(written(tmp_path / "other", weights)) != model_fingerprint(folder)


def test_settings_types_and_names_count(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model-0.safetensors")
    others = [
        written(tmp_path / "loops", weights, n_recurrent_loops=4),
        written(tmp_path / "types", {**weights, "a": weights["a"].bfloat16()}),
        written(
            tmp_path / "names", {("d" if name == "c" else name): value for name, value in weights.items()}
        ),
    ]
    prints = {model_fingerprint(each) for each in [folder, *others]}
    assert len(prints) == 4
    assert None not in prints


def test_what_is_not_whole_has_none(folder: Path, tmp_path: Path) -> None:
    assert model_fingerprint(tmp_path) is None
    assert model_fingerprint(tmp_path / "nowhere") is None
    file = folder / "model-0.safetensors"
    file.write_bytes(file.read_bytes()[:20])
    assert model_fingerprint(folder) is None
