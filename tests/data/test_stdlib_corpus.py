"""Python's own sources as a corpus: the same every time, no file in both parts."""

import ast
from pathlib import Path

import pytest

from loopscope.data.corpora import StdlibCorpus
from tests.data.fixtures import both


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
