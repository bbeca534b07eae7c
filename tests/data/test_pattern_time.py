"""A stranger's pattern that does not come to an end is refused; usual ones, and text without a space, pass."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from loopscope.data.tokenizers import (
    AbstractTokenizer,
    BPETokenizer,
    FileTokenizer,
    WordTokenizer,
    load_tokenizer,
    pattern_time,
)
from loopscope.data.tokenizers.pattern_time import check_patterns, patterns_in

SLOW = "(?:a|a?){20}[^a]"  # a million steps at every place: below what the library itself refuses
GIVEN_UP = "(a+)+$"  # beyond it: the library panics
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pattern_time, "SECONDS", 1.0)
    pattern_time._slow.cache_clear()
    yield
    pattern_time._slow.cache_clear()


def tokenizer_text(pattern: str) -> str:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return tokenizer.to_str()


@pytest.mark.parametrize("pattern", [SLOW, GIVEN_UP])
def test_a_pattern_without_an_end_is_refused_in_time(tmp_path: Path, pattern: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_text(pattern))
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer.*did not come to an end"):
        load_tokenizer(path)
    path.write_text(
        json.dumps({"kind": "word", "itos": ["<pad>", "<bos>", "<eos>", "<unk>"], "pattern": "(a+)+$"})
    )
    with pytest.raises(ValueError, match=r"its pattern '\(a\+\)\+\$' did not come to an end"):
        load_tokenizer(path)


def test_one_that_has_not_begun_in_time_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its compilation may be what does not end. One that ended before is not the one that is named."""
    late = subprocess.TimeoutExpired("python", 1.0, output=b"begun\nended\n")
    monkeypatch.setattr(pattern_time.subprocess, "run", Mock(side_effect=late))
    with pytest.raises(ValueError, match="its pattern 'b' did not come to an end"):
        check_patterns(["a", "b"])
    check_patterns(["a"])


def test_a_usual_pattern_passes_and_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pattern_time, "SECONDS", 30.0)
    assert FileTokenizer(tokenizer_text(GPT2)).encode("a").tolist() == [0]
    monkeypatch.setattr(pattern_time.subprocess, "run", lambda *_, **__: pytest.fail("tried again"))
    assert FileTokenizer(tokenizer_text(GPT2)).encode("a").tolist() == [0]


def test_our_own_patterns_cost_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pattern_time.subprocess, "run", lambda *_, **__: pytest.fail("tried"))
    for number, made in enumerate((BPETokenizer.train(["a b"], 256), WordTokenizer.train(["a a"], 8))):
        path = tmp_path / f"{number}.json"
        path.write_text(made.to_text())
        assert load_tokenizer(path).hash == made.hash


def test_every_pattern_in_a_file_is_found() -> None:
    data = {"a": [{"b": {"Regex": "x"}}, 3], "c": {"Regex": "y"}, "merges": ["Regex", "z"]}
    assert sorted(patterns_in(data)) == ["x", "y"]
    check_patterns([])


WITHOUT_SPACE = "ACGT" * 2**18


@pytest.mark.parametrize(
    "made",
    [
        BPETokenizer.train(["ACGT ACGT"], 258),
        WordTokenizer.train([f"{WITHOUT_SPACE[:8]} {WITHOUT_SPACE[:8]}"], 8),
        FileTokenizer(tokenizer_text(r"\w+")),
    ],
    ids=lambda made: made.kind,
)
def test_text_without_a_space_is_looked_through_a_few_times_and_not_once_a_piece(
    made: AbstractTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0
    cut = made.cut

    def counted(text: str) -> int:
        nonlocal seen
        seen += len(text)
        return cut(text)

    monkeypatch.setattr(made, "cut", counted)
    pieces = [WITHOUT_SPACE[start : start + 2**12] for start in range(0, len(WITHOUT_SPACE), 2**12)]
    assert "".join(made.parts(pieces)) == WITHOUT_SPACE
    assert seen < 3 * len(WITHOUT_SPACE)


@given(st.lists(st.text(alphabet="ab \n\t\u2028,é", max_size=12), max_size=12))
@settings(max_examples=60)
def test_pieces_are_encoded_as_the_whole_is(pieces: list[str]) -> None:
    for made in (BPE, WORD):
        whole = made.encode("".join(pieces))
        parts = list(made.encode_stream(pieces))
        assert np.concatenate([whole[:0], *parts]).tolist() == whole.tolist()


BPE = BPETokenizer.train(["ab ba\n\nab ,  é"], 262)
WORD = WordTokenizer.train(["ab ba\n\nab ,  é ab"], 16, 1)


def test_a_panic_of_the_library_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopscope.data.tokenizers.file.check_patterns", lambda _: None)
    made = FileTokenizer(tokenizer_text(GIVEN_UP))
    with pytest.raises(ValueError, match="the tokenizer cannot take this text: Onig: Regex search error"):
        made.encode("a" * 2000 + "!")
