"""Ingestion: ids and sizes are those of the whole text, in memory that does not grow with it."""

import tracemalloc
from pathlib import Path

import pytest

from loopscope.data.config import DataConfig, TokenizerConfig
from loopscope.data.preparation import prepare
from loopscope.data.tokenizers import WordTokenizer
from tests.data.fixtures import HELD_OUT, KINDS, TEXT, changed


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


def test_one_file_is_split_and_nothing_of_it_is_lost(config: DataConfig) -> None:
    data = changed(config, validation_files=(), validation_fraction=0.25, tokenizer="bytes")
    found = prepare(data, progress=False)
    assert bytes([*found.train.tokens, *found.validation.tokens]).decode() == TEXT
    assert found.validation.bytes == len(TEXT) // 4


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


LARGE = 12 * 2**20

LINE = "a_rather_long_identifier = another_rather_long_identifier\n"  # few tokens: tracing is slow


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_text(kind: str, cache: Path, tmp_path: Path) -> None:
    peaks = []
    for size in (LARGE // 4, LARGE):
        path = tmp_path / f"{size}.txt"
        path.write_text(LINE * (size // len(LINE)))
        tokenizer = TokenizerConfig(kind=kind, vocabulary=300)
        data = DataConfig(corpus="files", files=(str(path),), tokenizer=tokenizer, max_validation_bytes=2**20)
        peaks.append(peak_of(data))
    assert peaks[1] < 1.3 * peaks[0]
    assert peaks[1] < LARGE
