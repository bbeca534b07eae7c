"""Ingestion: once, whole or not at all, and in memory that does not grow with the text."""

import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopscope.data import prepare as preparing
from loopscope.data.config import DataConfig, TokenizerConfig
from loopscope.data.corpora import FilesCorpus
from loopscope.data.prepare import cache_folder, open_prepared, prepare
from loopscope.data.tokenizers import WordTokenizer

TEXT = "the cat sat on the mat, the dog did not.\n" * 60
HELD_OUT = "the dog sat on the zebra, the zebra did not.\n" * 9
KINDS: dict[str, dict[str, Any]] = {"word": {}, "bpe": {"vocabulary": 290}, "bytes": {}}


@pytest.fixture
def config(tmp_path: Path, cache: Path) -> DataConfig:
    """A training file and a validation file, with a cache of this test's own."""
    (tmp_path / "train.txt").write_text(TEXT)
    (tmp_path / "held.txt").write_text(HELD_OUT)
    return DataConfig(
        corpus="files", files=(str(tmp_path / "train.txt"),), validation_files=(str(tmp_path / "held.txt"),)
    )


def changed(config: DataConfig, **changes: Any) -> DataConfig:
    return DataConfig(**(config.model_dump() | changes))


def failing(*_: Any) -> None:
    raise RuntimeError("ingested again")


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_whole_text(kind: str, config: DataConfig) -> None:
    found = prepare(changed(config, tokenizer={"kind": kind, **KINDS[kind]}), progress=False)
    for tokens, text in ((found.train, TEXT), (found.validation, HELD_OUT)):
        assert tokens.tokens.tolist() == found.tokenizer.encode(text).tolist()
        assert tokens.bytes == len(text)
        assert tokens.vocabulary_size == found.tokenizer.vocabulary_size
        assert tokens.tokenizer_hash == found.tokenizer.hash
    assert found.train.bytes_per_token == len(TEXT) / found.train.count


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_the_text_counts_bytes_also_of_what_has_no_token(kind: str, config: DataConfig) -> None:
    text = "café, 日本 😀.\n" * 30
    Path(config.files[0]).write_text(text, encoding="utf-8")
    found = prepare(changed(config, tokenizer={"kind": kind, **KINDS[kind]}), progress=False)
    assert found.train.bytes == len(text.encode())


def test_validation_text_enters_the_vocabulary_only_when_asked(config: DataConfig) -> None:
    leaking = changed(config, tokenizer={"kind": "word", "count_validation": True})
    for data, known in ((config, False), (leaking, True)):
        tokenizer = prepare(data, progress=False).tokenizer
        assert isinstance(tokenizer, WordTokenizer)
        assert ("zebra" in tokenizer.itos) is known


def test_the_last_word_of_training_and_the_first_of_validation_stay_two(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "train.txt").write_text("one two")
    (tmp_path / "held.txt").write_text("three one")
    data = DataConfig(
        corpus="files",
        files=(str(tmp_path / "train.txt"),),
        validation_files=(str(tmp_path / "held.txt"),),
        tokenizer=TokenizerConfig(count_validation=True, min_count=1),
    )
    tokenizer = prepare(data, progress=False).tokenizer
    assert isinstance(tokenizer, WordTokenizer)
    assert set(tokenizer.itos[4:]) == {" ", "\n\n", "one", "two", "three"}


def test_caps_count_bytes_of_both_parts(config: DataConfig) -> None:
    found = prepare(
        changed(config, max_bytes=100, max_validation_bytes=50, tokenizer="bytes"), progress=False
    )
    assert bytes(found.train.tokens.tolist()).decode() == TEXT[:100]
    assert bytes(found.validation.tokens.tolist()).decode() == HELD_OUT[:50]


def test_the_second_call_opens_what_the_first_made(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(config, progress=False)
    monkeypatch.setattr(preparing, "_build", failing)
    for again in (prepare(config, progress=False), open_prepared(first.directory)):
        assert again.directory == first.directory
        assert again.tokenizer.hash == first.tokenizer.hash
        assert np.array_equal(again.train.tokens, first.train.tokens)
        assert np.array_equal(again.validation.tokens, first.validation.tokens)
    assert prepare(changed(config, stride=7), progress=False).directory == first.directory
    with pytest.raises(RuntimeError, match="ingested again"):
        prepare(changed(config, max_bytes=500), progress=False)


def test_a_changed_file_gets_a_new_folder(config: DataConfig) -> None:
    first = prepare(config, progress=False)
    Path(config.files[0]).write_text(TEXT + "And then some more.\n")
    second = prepare(config, progress=False)
    assert second.directory != first.directory
    assert second.train.bytes == first.train.bytes + 20
    assert open_prepared(first.directory).train.bytes == len(TEXT)


def test_every_setting_that_changes_ids_has_a_folder_of_its_own(config: DataConfig) -> None:
    variants = [
        config,
        *(changed(config, tokenizer={"kind": kind, **KINDS[kind]}) for kind in ("bpe", "bytes")),
        changed(config, tokenizer={"vocabulary": 9}),
        changed(config, tokenizer={"min_count": 3}),
        changed(config, max_bytes=1000),
        changed(config, validation_files=()),
        changed(config, validation_files=(), validation_fraction=0.3),
    ]
    found = [prepare(variant, progress=False) for variant in variants]
    assert len({data.directory for data in found}) == len(variants)
    assert len({data.tokenizer.hash for data in found[:4]}) == 4
    assert sorted(path.name for path in found[0].directory.parent.iterdir()) == sorted(
        data.directory.name for data in found
    )


def test_one_file_is_split_and_nothing_of_it_is_lost(config: DataConfig) -> None:
    data = changed(config, validation_files=(), validation_fraction=0.25, tokenizer="bytes")
    found = prepare(data, progress=False)
    assert bytes([*found.train.tokens, *found.validation.tokens]).decode() == TEXT
    assert found.validation.bytes == len(TEXT) // 4


@pytest.mark.parametrize("moment", ["vocabulary", "training", "validation"])
def test_a_crash_midway_leaves_nothing(
    moment: str, config: DataConfig, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = {"vocabulary": 0, "training": 1, "validation": None}[moment]
    reads = {"train": 0}
    train, validation = FilesCorpus.train, FilesCorpus.validation

    def failing_train(corpus: FilesCorpus) -> Iterator[str]:
        number, reads["train"] = reads["train"], reads["train"] + 1

        def pieces() -> Iterator[str]:
            yield from train(corpus)
            if number == passes:
                raise RuntimeError("out of disk")

        return pieces()

    def failing_validation(corpus: FilesCorpus) -> Iterator[str]:
        yield from validation(corpus)
        if passes is None:
            raise RuntimeError("out of disk")

    monkeypatch.setattr(FilesCorpus, "train", failing_train)
    monkeypatch.setattr(FilesCorpus, "validation", failing_validation)
    with pytest.raises(RuntimeError, match="out of disk"):
        prepare(config, progress=False)
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    assert prepare(changed(config, cache=str(cache)), progress=False).train.bytes == len(TEXT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("index", "part"), [(0, "training"), (1, "validation")])
def test_a_part_without_text_is_refused_and_leaves_nothing(
    index: int, part: str, kind: str, config: DataConfig, cache: Path
) -> None:
    Path((config.files + config.validation_files)[index]).write_text("")
    with pytest.raises(ValueError, match=f"corpus 'files' has no {part} text"):
        prepare(changed(config, tokenizer={"kind": kind, **KINDS[kind]}), progress=False)
    assert list(cache.iterdir()) == []


def test_text_of_which_the_tokenizer_keeps_nothing_is_refused(config: DataConfig, cache: Path) -> None:
    Path(config.validation_files[0]).write_text("éàü")
    with pytest.raises(ValueError, match="no validation text .or none that tokenizer 'word' keeps"):
        prepare(config, progress=False)
    assert list(cache.iterdir()) == []


def test_when_another_process_was_first_its_folder_is_kept(
    config: DataConfig, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = preparing._build
    theirs: list[Path] = []

    def slow(*arguments: Any) -> None:
        build(*arguments)
        monkeypatch.setattr(preparing, "_build", build)
        theirs.append(prepare(config, progress=False).directory)  # the other process

    monkeypatch.setattr(preparing, "_build", slow)
    found = prepare(config, progress=False)
    assert theirs == [found.directory]
    assert list(cache.iterdir()) == [found.directory]


def test_only_old_remains_of_killed_ingestions_are_removed(config: DataConfig, cache: Path) -> None:
    for name, days in ((".building-old", 2), (".building-now", 0), ("a-folder-of-mine", 9)):
        (cache / name).mkdir(parents=True)
        then = time.time() - days * 24 * 3600
        os.utime(cache / name, (then, then))
    found = prepare(config, progress=False)
    names = {path.name for path in cache.iterdir()}
    assert names == {".building-now", "a-folder-of-mine", found.directory.name}


@pytest.mark.parametrize("name", ["tokenizer.json", "train.tokens", "validation.tokens"])
def test_a_damaged_folder_is_refused_by_file(name: str, config: DataConfig) -> None:
    directory = prepare(config, progress=False).directory
    path = directory / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(ValueError, match=str(path)):
        prepare(config, progress=False)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path} does not exist"):
        prepare(config, progress=False)
    path.write_bytes(whole)
    assert prepare(config, progress=False).train.bytes == len(TEXT)


def test_token_files_under_another_tokenizer_are_refused(config: DataConfig) -> None:
    directory = prepare(config, progress=False).directory
    other = prepare(changed(config, tokenizer={"vocabulary": 9}), progress=False).directory
    (directory / "tokenizer.json").write_bytes((other / "tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match=r"train\.tokens was made with another tokenizer"):
        prepare(config, progress=False)


def test_the_cache_is_where_it_is_asked_to_be(
    config: DataConfig, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare(config, progress=False).directory.parent == cache
    own = changed(config, cache=str(tmp_path / "own"))
    found = prepare(own, progress=False)
    assert found.directory.parent == tmp_path / "own"
    assert found.directory.name in {path.name for path in cache.iterdir()}  # the same text: the same name
    monkeypatch.delenv("LOOPSCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(config) == tmp_path / "xdg" / "loopscope"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(config) == tmp_path / ".cache" / "loopscope"
    monkeypatch.setenv("LOOPSCOPE_CACHE", "~/mine")
    assert cache_folder(config) == tmp_path / "mine"


def test_the_default_corpus_ingests_capped(cache: Path) -> None:
    found = prepare(DataConfig(max_bytes=300_000, max_validation_bytes=50_000), progress=False)
    assert 299_997 <= found.train.bytes <= 300_000
    assert 49_997 <= found.validation.bytes <= 50_000
    assert found.tokenizer.vocabulary_size > 1000
    assert "import" in found.tokenizer.decode(found.train.tokens[:5000].tolist())
    assert found.directory.name.startswith("stdlib-word-")


def test_progress_goes_to_standard_error(config: DataConfig, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(config, progress=True)
    assert capsys.readouterr().out == ""


def test_a_local_dataset_from_end_to_end(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = tmp_path / "my rows"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "the cat sat. the cat"}\n{"text": ""}\n{"text": "sat"}\n')
    (folder / "validation.jsonl").write_text('{"text": "the cat"}\n')
    found = prepare(DataConfig(corpus=str(folder)), progress=False)
    assert found.directory.parent == cache
    assert found.tokenizer.decode(found.train.tokens.tolist()) == "the cat sat<unk> the cat<unk>sat"
    assert found.tokenizer.decode(found.validation.tokens.tolist()) == "the cat"


def peak_of(config: DataConfig) -> int:
    """Bytes that Python and numpy held at most while ingesting."""
    tracemalloc.start()
    try:
        prepare(config, progress=False)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LARGE = 30 * 2**20
LINE = "a_rather_long_identifier = another_rather_long_identifier\n"  # few tokens: tracing is slow


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_text(kind: str, cache: Path, tmp_path: Path) -> None:
    peaks = []
    for size in (LARGE // 10, LARGE):
        path = tmp_path / f"{size}.txt"
        path.write_text(LINE * (size // len(LINE)))
        tokenizer = TokenizerConfig(kind=kind, vocabulary=300)
        data = DataConfig(corpus="files", files=(str(path),), tokenizer=tokenizer, max_validation_bytes=2**20)
        peaks.append(peak_of(data))
    assert peaks[1] < 1.3 * peaks[0]
    assert peaks[1] < LARGE
