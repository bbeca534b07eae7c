"""What the system refuses is one sentence that names the file, also where the error names none or a temporary one."""

import errno
import os
from pathlib import Path

import pytest
import torch

from loopscope.results.faults import in_words
from loopscope.results.layout import write_text
from loopscope.results.tensor_file import read_tensors, write_tensors
from tests.results.fixtures import file_limit


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "your quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission is denied"),
        (errno.ENAMETOOLONG, "longer than the file system takes"),
        (errno.ENOTDIR, "a file, not a folder"),
        (errno.EIO, "the disk reports an error"),
    ],
)
def test_a_refusal_is_a_sentence(code: int, says: str) -> None:
    said = in_words(OSError(code, os.strerror(code), "runs/x/result.json"))
    assert said.startswith("runs/x/result.json: ")
    assert says in said
    assert "What was saved before is whole; " in said
    assert "\n" not in said
    assert "Errno" not in said


def test_a_long_path_is_cut_to_a_line_and_a_library_s_own_words_stay() -> None:
    said = in_words(OSError(errno.ENAMETOOLONG, "x", "a" * 5000 + "/end"))
    assert len(said) < 400
    assert "…" in said
    assert "/end: " in said
    assert in_words(OSError("no connection\nTraceback")) == "no connection"


def test_a_full_disk_names_the_file_that_was_written(tmp_path: Path) -> None:
    """A real limit on the size of files: the system names no file then, and what is written is a temporary one."""
    write_text(tmp_path / "result.json", "old")
    with file_limit(1000), pytest.raises(OSError, match="File too large") as caught:
        write_text(tmp_path / "result.json", "x" * 5000)
    assert in_words(caught.value).startswith(f"{tmp_path / 'result.json'}: the file would be larger")
    assert (tmp_path / "result.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]
    with pytest.raises(OSError, match="result") as caught:
        write_text(tmp_path / "missing" / "result.json", "x")
    assert in_words(caught.value).startswith(f"{tmp_path / 'missing' / 'result.json'}: there is no such")


def test_tensors_fail_as_files_do_and_damage_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with file_limit(1000), pytest.raises(OSError, match="model.safetensors") as caught:
        write_tensors({"a": torch.zeros(5000)}, path)
    assert caught.value.errno == errno.EFBIG
    write_tensors({"a": torch.arange(3)}, path)
    assert read_tensors(path)["a"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"model.safetensors is cut short or damaged"):
        read_tensors(path)
    with pytest.raises(ValueError, match="is missing"):
        read_tensors(tmp_path / "none.safetensors")


def test_what_is_written_goes_through_no_link(tmp_path: Path) -> None:
    """A link under the temporary name, or under the name itself, is replaced and not followed."""
    mine = tmp_path / "thesis.tex"
    mine.write_text("mine")
    (tmp_path / f".writing-{os.getpid()}-result.json").symlink_to(mine)
    (tmp_path / "result.json").symlink_to(mine)
    write_text(tmp_path / "result.json", "new")
    assert mine.read_text() == "mine"
    assert (tmp_path / "result.json").read_text() == "new"
