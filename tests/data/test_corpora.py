"""Corpora: parts share nothing, lose nothing, and what cannot be read is named."""

import ast
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.data.config import DataConfig
from loopscope.data.corpora import (
    AbstractCorpus,
    FilesCorpus,
    HuggingFaceCorpus,
    StdlibCorpus,
    build_corpus,
    capped,
)
from loopscope.data.corpora.base import PIECE, joined, read_pieces

WIDE = st.text(st.sampled_from("ab \n\ré€😀"), max_size=60)


def both(corpus: AbstractCorpus) -> tuple[str, str]:
    return "".join(corpus.train()), "".join(corpus.validation())


def filled(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


# Cutting and joining


@given(pieces=st.lists(WIDE), limit=st.integers(1, 300))
def test_capped_is_the_longest_prefix_of_whole_characters(pieces: list[str], limit: int) -> None:
    text = "".join(pieces)
    expected = max((text[:n] for n in range(len(text) + 1) if len(text[:n].encode()) <= limit), key=len)
    assert "".join(capped(pieces, limit)) == expected
    assert "".join(capped(pieces, None)) == text


def test_capped_stops_reading_at_the_limit() -> None:
    def endless():
        for index in range(100):
            assert index < 4, "read on after the limit"
            yield "abc"

    assert "".join(capped(endless(), 12)) == "abc" * 4


@given(documents=st.lists(WIDE), separator=st.sampled_from(["\n\n", "", "--"]))
def test_joined_is_str_join(documents: list[str], separator: str) -> None:
    assert "".join(joined(documents, separator)) == separator.join(documents)


def test_joined_comes_in_pieces_of_about_a_megabyte() -> None:
    documents = ["x" * (PIECE // 3)] * 20
    pieces = list(joined(documents))
    assert "".join(pieces) == "\n\n".join(documents)
    assert len(pieces) > 4
    assert max(map(len, pieces)) < 2 * PIECE


def test_a_file_keeps_its_line_ends_and_comes_in_pieces(tmp_path: Path) -> None:
    text = "a\r\nb\rc\n\u2028é" * 200_000
    (tmp_path / "a.txt").write_bytes(text.encode())
    pieces = list(read_pieces(tmp_path / "a.txt"))
    assert "".join(pieces) == text
    assert [len(piece) for piece in pieces] == [PIECE, len(text) - PIECE]


@pytest.mark.parametrize("start", [0, 7, 3 * PIECE])
def test_a_file_that_is_not_utf8_is_named(start: int, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"a" * start + "é".encode("latin-1") + b"tude")
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8 text \(.* at byte \d+\); convert it"):
        list(read_pieces(tmp_path / "latin.txt"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8"):
        both(FilesCorpus([str(tmp_path / "latin.txt")], [], 0.5))


# Python's own sources


def test_stdlib_is_the_same_every_time_and_shares_no_file_between_the_parts() -> None:
    one, two = StdlibCorpus(0.05), StdlibCorpus(0.05)
    assert one.train_files == two.train_files
    assert one.validation_files == two.validation_files
    assert one.fingerprint() == two.fingerprint()
    assert not set(one.train_files) & set(one.validation_files)
    assert len(one.train_files) + len(one.validation_files) > 300
    assert 0.02 < len(one.validation_files) / len(one.train_files) < 0.09
    skipped = {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    for path in one.train_files + one.validation_files:
        assert not skipped & set(path.relative_to(one.root).parts)


def test_stdlib_is_text_of_python_files() -> None:
    corpus = StdlibCorpus(0.05)
    train, validation = both(corpus)
    assert train == "".join(StdlibCorpus(0.05).train())
    assert len(train) > 5_000_000
    assert 0.6 * corpus.train_bytes() < len(train.encode()) < 1.02 * corpus.train_bytes()
    some = [path.read_text(encoding="utf-8") for path in corpus.validation_files[:5]]
    for text in filter(str.strip, some):
        ast.parse(text)
        assert text in validation
        assert len(text) < 500 or text not in train


def test_a_larger_fraction_only_moves_files_to_validation() -> None:
    small, large = StdlibCorpus(0.02), StdlibCorpus(0.3)
    assert set(small.validation_files) < set(large.validation_files)
    assert set(small.train_files + small.validation_files) == set(large.train_files + large.validation_files)


def test_stdlib_of_another_folder(tmp_path: Path) -> None:
    for index in range(40):
        (tmp_path / f"m{index}.py").write_text(f"x = {index}\n")
    (tmp_path / "empty.py").write_text("\n")
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "m.py").write_text("tested\n")
    corpus = StdlibCorpus(0.3, tmp_path)
    train, validation = both(corpus)
    found = [line for part in (train, validation) for line in part.split("\n\n")]
    assert sorted(line.strip() for line in found) == sorted(f"x = {index}" for index in range(40))
    assert train
    assert validation
    before = corpus.fingerprint()
    (tmp_path / "m3.py").write_text("x = 3 + 0\n")
    assert StdlibCorpus(0.3, tmp_path).fingerprint() != before
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no Python sources at .*nothing"):
        StdlibCorpus(0.3, tmp_path / "nothing")


# Files


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
    for missing in (folder / "absent.txt", folder / "absent*.md", folder):
        with pytest.raises(ValueError, match=r"is not a file and matches none") as caught:
            FilesCorpus([str(folder / "a.txt"), str(missing)], [], 0.5)
        assert repr(str(missing)) in str(caught.value)
        with pytest.raises(ValueError, match="matches none"):
            FilesCorpus([str(folder / "a.txt")], [str(missing)], 0.5)


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


# Hugging Face


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A local dataset: a folder with a file of JSON lines per split."""
    pytest.importorskip("datasets")
    folder = tmp_path / "rows"
    folder.mkdir()
    texts = {
        "train": ["first é", "", "  \n", " second\n", "third"],
        "validation": ["\n", "held out", "😀"],
    }
    for split, lines in texts.items():
        listed = "".join(json.dumps({"text": line, "other": line.upper()}) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(listed)
    return folder


def test_rows_that_are_not_blank_joined_by_a_blank_line(rows: Path) -> None:
    corpus = build_corpus(DataConfig(corpus=str(rows)))
    assert both(corpus) == ("first é\n\n second\n\n\nthird", "held out\n\n😀")
    assert both(corpus) == ("first é\n\n second\n\n\nthird", "held out\n\n😀")


def test_another_column_and_another_split(rows: Path) -> None:
    config = DataConfig(corpus=str(rows), text_column="other", train_split="validation")
    assert both(build_corpus(config)) == ("HELD OUT\n\n😀", "HELD OUT\n\n😀")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_column": "body"}, "no column 'body' .*there are: text, other"),
        ({"train_split": "training"}, "split 'training', cannot be read"),
        ({"dataset_config": "absent"}, "cannot be read.*absent"),
    ],
)
def test_what_a_dataset_lacks_is_named(changes: dict[str, str], message: str, rows: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        list(HuggingFaceCorpus(DataConfig(corpus=str(rows), **changes)).train())
    assert str(rows) in str(caught.value)


def test_a_dataset_that_cannot_be_had_is_named_with_what_else_to_do(rows: Path) -> None:
    corpus = build_corpus(DataConfig(corpus="loopscope-tests/no-such-dataset"))
    with pytest.raises(ValueError, match="'loopscope-tests/no-such-dataset'.*or corpus: stdlib"):
        list(corpus.train())


def test_a_local_dataset_has_a_fingerprint_of_its_files(rows: Path) -> None:
    config = DataConfig(corpus=str(rows))
    before = build_corpus(config).fingerprint()
    assert build_corpus(config).fingerprint() == before
    with (rows / "train.jsonl").open("a") as file:
        file.write('{"text": "fourth", "other": ""}\n')
    assert build_corpus(config).fingerprint() != before
    assert both(build_corpus(config))[0].endswith("third\n\nfourth")


def test_names_of_corpora() -> None:
    assert isinstance(build_corpus(DataConfig()), StdlibCorpus)
    published = build_corpus(DataConfig(corpus="wikitext-103"))
    assert isinstance(published, HuggingFaceCorpus)
    assert (published.name, published.dataset_config) == ("Salesforce/wikitext", "wikitext-103-raw-v1")


def test_files_without_a_last_newline_do_not_run_into_each_other(tmp_path: Path) -> None:
    for name, text in (("a.txt", "one"), ("b.txt", "two\n"), ("c.txt", "three"), ("v.txt", "four")):
        (tmp_path / name).write_text(text)
    names = [str(tmp_path / name) for name in ("a.txt", "b.txt", "c.txt")]
    assert "".join(FilesCorpus(names, [str(tmp_path / "v.txt")], 0.1).train()) == "one\ntwo\nthree"


def test_a_dataset_without_a_validation_split_holds_out_rows(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    rows = [{"text": f"row {number}"} for number in range(20)] + [{"text": None}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = HuggingFaceCorpus(
        DataConfig(corpus=str(tmp_path), validation_split=None, validation_fraction=0.25)
    )
    train, held_out = ("".join(part).split("\n\n") for part in (corpus.train(), corpus.validation()))
    assert held_out == ["row 3", "row 7", "row 11", "row 15", "row 19"]
    assert sorted(train + held_out) == sorted(f"row {number}" for number in range(20))
