"""Models that do not fit the memory: said before they are loaded, with how much is needed and what to do.

The files are sparse: their headers name more bytes than any machine has, and take none.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import loopscope
from tests.interop.huggingface.test_pretrained import dory

TEBI = 2**40


def sparse(path: Path, numbers: int) -> None:
    """A safetensors file of one bf16 matrix of so many numbers, without any of them on the disk."""
    entry = {"dtype": "BF16", "shape": [numbers // 1024, 1024], "data_offsets": [0, 2 * numbers]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + 2 * numbers)


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A Dory whose two shards together are 8 TiB."""
    dory().config.save_pretrained(tmp_path)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    try:
        for name in names:
            sparse(tmp_path / name, 2 * TEBI)
    except OSError as error:  # a file system without sparse files of this size
        pytest.skip(str(error))
    index = {"weight_map": {f"part.{place}": name for place, name in enumerate(names)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def test_what_is_needed_and_what_is_there_is_said_before_loading(
    huge: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)  # would be a TypeError
    assert call("audit", huge) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "needs about 9420.8 GiB of memory, and " in said  # 8 TiB, and what loading takes
    assert "GiB are free; let --device-map auto place it over what devices there are" in said
    assert "Traceback" not in said


def test_a_wider_type_needs_more_and_the_narrower_one_is_advised(huge: Path) -> None:
    with pytest.raises(
        ValueError, match=r"about 18841.6 GiB of memory.*load it in half precision .--dtype bf"
    ):
        loopscope.load(huge, dtype="float32")
