"""Hashes of a folder's files and of their table: whatever was changed is found, whichever file it is."""

import hashlib
import json
from pathlib import Path

import pytest

from loopscope.results.manifest import check_files, sha256_of, table_of

FILES = {"config.yaml": "a: 1\n", "model.safetensors": "weights", "tokenizer.json": "{}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with its table."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "manifest.json").write_text(table_of(tmp_path))
    return tmp_path


def test_a_whole_folder_passes_and_its_hashes_are_those_of_sha256(folder: Path) -> None:
    table = check_files(folder)
    assert table is not None
    assert table["sha256"] == {
        name: hashlib.sha256(text.encode()).hexdigest() for name, text in FILES.items()
    }
    assert sha256_of(folder / "config.yaml", 2) == hashlib.sha256(b"a:").hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_a_cut_and_a_loss_are_named(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for content in (bytes([whole[0] ^ 1]) + whole[1:], whole[:-1], whole + b"x", b""):
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is cut short or was changed after it was written"):
            check_files(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} is missing"):
        check_files(folder)


def test_the_table_is_under_its_own_hash(folder: Path) -> None:
    path = folder / "manifest.json"
    table = json.loads(path.read_text())
    (folder / "model.safetensors").write_text("other weights")
    table["sha256"]["model.safetensors"] = sha256_of(folder / "model.safetensors")
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=r"manifest.json was changed after it was written"):
        check_files(folder)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json is missing or damaged"):
        check_files(folder)


def test_an_empty_table_turns_nothing_off(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"sha256": {}}')
    with pytest.raises(ValueError, match=r"config.yaml is not in the table of manifest.json"):
        check_files(folder)


def test_a_folder_made_by_hand_has_none_and_a_checkpoint_must(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").unlink()
    assert check_files(folder) is None
    checkpoint = tmp_path / "checkpoints" / "step-00000004"
    checkpoint.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"step-00000004/state.json is missing"):
        check_files(checkpoint)
    (checkpoint / "state.json").write_text(table_of(checkpoint, {"step": 3}))
    with pytest.raises(ValueError, match=r"state.json is of step 3 and lies in step-00000004"):
        check_files(checkpoint)
    (checkpoint / "state.json").unlink()
    (checkpoint / "state.json").write_text(table_of(checkpoint, {"step": 4}))
    assert (check_files(checkpoint) or {})["step"] == 4


def test_a_seal_that_lost_its_name_is_damage(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("sha256_of_this_table", "sha256_of_this_uable"))
    with pytest.raises(
        ValueError, match=r"manifest.json is missing or damaged \(the name of its seal was changed\)"
    ):
        check_files(folder)
