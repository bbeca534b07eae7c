"""Files as a corpus: their order, what is held out, and what is refused."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.data.corpora import FilesCorpus
from loopscope.data.corpora.base import PIECE
from tests.data.fixtures import WIDE, both, filled


def test_files_in_the_order_given_and_sorted_within_a_glob(tmp_path: Path) -> None:
    folder = filled(tmp_path / "in", b="B", a="A", c="C", v="V")
    filled(folder / "deep" / "er", d="D")
    files = [str(folder / "c.txt"), str(folder / "[a-c].txt"), str(folder / "**" / "d.txt")]
    corpus = FilesCorpus(files, [str(folder / "v.txt")], 0.5)
    assert both(corpus) == ("C\nA\nB\nD", "V")
    assert corpus.train_bytes() == 4


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("one")
    (tmp_path / "a1.txt").write_text("other")
    corpus = FilesCorpus([str(tmp_path / "a[1].txt")], [str(tmp_path / "a1.txt")], 0.5)
    assert both(corpus) == ("one", "other")


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(filled(tmp_path, a="A", b="B")))
    assert both(FilesCorpus(["~/a.txt"], ["~/b*"], 0.5)) == ("A", "B")


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    folder = filled(tmp_path, a="A")
    for missing in (folder / "absent.txt", folder / "absent*.md"):
        with pytest.raises(ValueError, match=r"is not a file and matches none") as caught:
            FilesCorpus([str(folder / "a.txt"), str(missing)], [], 0.5)
        assert repr(str(missing)) in str(caught.value)
        with pytest.raises(ValueError, match="matches none"):
            FilesCorpus([str(folder / "a.txt")], [str(missing)], 0.5)


def test_a_folder_is_told_with_the_glob_to_write(tmp_path: Path) -> None:
    folder = filled(tmp_path, a="A")
    with pytest.raises(ValueError, match=rf"is a folder; name the files in it: '{folder}/\*\*/\*.txt'"):
        FilesCorpus([str(folder)], [], 0.5)


@given(count=st.integers(2, 30), fraction=st.floats(0.01, 0.4))
def test_some_of_several_files_are_held_out_whole(count: int, fraction: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        filled(Path(folder), **{f"n{index}": f"<{index}>" for index in range(count)})
        train, validation = both(FilesCorpus([f"{folder}/*.txt"], [], fraction))
        assert both(FilesCorpus([f"{folder}/*.txt"], [], fraction)) == (train, validation)
    found = [part.replace("><", "> <").split() for part in (train, validation)]
    assert sorted(found[0] + found[1]) == sorted(f"<{index}>" for index in range(count))
    assert len(found[1]) == max(1, round(fraction * count))


def test_what_is_held_out_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    texts = {f"n{index}": f"<{index}>" for index in range(9)}
    parts = [both(FilesCorpus([f"{filled(tmp_path / name, **texts)}/*"], [], 0.3)) for name in ("x", "y")]
    assert parts[0] == parts[1]


@given(text=WIDE, fraction=st.floats(0.001, 0.999))
def test_the_tail_of_one_file_is_what_training_leaves(text: str, fraction: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        filled(Path(folder), a=text)
        corpus = FilesCorpus([f"{folder}/a.txt"], [], fraction)
        train, validation = both(corpus)
        assert corpus.train_bytes() == int(len(text.encode()) * (1 - fraction))
    assert train + validation == text
    assert 0 <= int(len(text.encode()) * (1 - fraction)) - len(train.encode()) < 4


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.8, 0.93])
def test_the_tail_of_one_file_of_many_pieces(fraction: float, tmp_path: Path) -> None:
    text = "a😀é\r\n" * (PIECE // 2)
    filled(tmp_path, a=text)
    train, validation = both(FilesCorpus([str(tmp_path / "a.txt")], [], fraction))
    assert train + validation == text
    assert len(validation.encode()) == pytest.approx(fraction * len(text.encode()), abs=5)


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_cut_at_the_border_of_two_pieces(beyond: int, tmp_path: Path) -> None:
    filled(tmp_path, a="a" * (2 * PIECE + 2 * beyond))
    train, validation = both(FilesCorpus([str(tmp_path / "a.txt")], [], 0.5))
    assert (len(train), len(validation)) == (PIECE + beyond, PIECE + beyond)


def test_a_file_in_both_parts_is_refused(tmp_path: Path) -> None:
    folder = filled(tmp_path, a="A", b="B")
    with pytest.raises(ValueError, match=r"a\.txt is in files and in validation_files"):
        FilesCorpus([f"{folder}/*.txt"], [f"{folder}/a.txt"], 0.5)


def test_a_file_in_both_parts_is_refused_under_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled(tmp_path, a="A")
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=r"a\.txt is in files and in validation_files"):
        FilesCorpus(["a.txt"], [f"{folder}/a.txt"], 0.5)


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    folder = filled(tmp_path, a="A", b="B")
    corpus = FilesCorpus(
        [f"{folder}/a.txt", f"{folder}/*.txt"], [f"{filled(tmp_path / 'v', v='V')}/v.txt"], 0.5
    )
    assert both(corpus) == ("A\nB", "V")


def test_a_fingerprint_follows_the_text(tmp_path: Path) -> None:
    folder = filled(tmp_path, a="A" * 20, b="B" * 20)

    def fingerprint() -> str:
        return FilesCorpus([f"{folder}/a.txt"], [f"{folder}/b.txt"], 0.5).fingerprint()

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    filled(folder, a="A" * 21)
    seen.append(fingerprint())
    os.utime(folder / "b.txt", ns=(1, 1))
    seen.append(fingerprint())
    assert len(set(seen)) == 3


def test_files_without_a_last_newline_do_not_run_into_each_other(tmp_path: Path) -> None:
    for name, text in (("a.txt", "one"), ("b.txt", "two\n"), ("c.txt", "three"), ("v.txt", "four")):
        (tmp_path / name).write_text(text)
    names = [str(tmp_path / name) for name in ("a.txt", "b.txt", "c.txt")]
    assert "".join(FilesCorpus(names, [str(tmp_path / "v.txt")], 0.1).train()) == "one\ntwo\nthree"
