"""Tokenizers: streams equal whole texts, words as `re.findall` finds them, JSON and back."""

import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from loopscope.data.config import TokenizerConfig
from loopscope.data.tokenizers import (
    AbstractTokenizer,
    BPETokenizer,
    ByteTokenizer,
    WordTokenizer,
    load_tokenizer,
    train_tokenizer,
)
from loopscope.data.tokenizers import word as word_module

SHARED = Path(__file__).parents[3] / "shared"
KINDS = ["word", "bpe", "bytes"]
PUBLISHED_PATTERN = re.compile(r"\s+|[A-Za-z0-9_]+|[^\w\s]")
PROSE = (
    "The cat sat on the mat.\n\nThe cat, the dog;  and the naïve café owner said: “no”.\n"
    "    def f(x):\n        return x_1 + 22\n\n\n" * 20
)

SPACES = [" ", "  ", "     ", "\n", "\n\n\n", " \n ", "\r\n", "\t", "\x1c", "\u2028", "\x85", "\u00a0", "\0"]
WORDS = [
    "the",
    "cat",
    "x_1",
    "22",
    "é",
    "café",
    "😀",
    "👩\u200d👩\u200d👧",
    "é",
    "日本",
    ".",
    "“",
    "<unk>",
    "<|endoftext|>",
]
RUNS = st.sampled_from(SPACES + WORDS)
TEXTS = st.one_of(st.lists(RUNS, max_size=30).map("".join), st.text(st.characters(codec="utf-8")))
CUTS = st.lists(st.floats(0, 1, exclude_max=True), max_size=8)


@cache
def trained(kind: str) -> AbstractTokenizer:
    return train_tokenizer(TokenizerConfig(kind=kind, vocabulary=300), [PROSE])


def pieces_of(text: str, cuts: list[float]) -> list[str]:
    places = [0, *sorted(int(cut * (len(text) + 1)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert "".join(pieces) == text
    return pieces


def prose(name: str) -> str:
    path = SHARED / "data" / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside this checkout")
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, cuts=CUTS)
@example(text="the  cat\n\n\n the", cuts=[0.3, 0.35, 0.6, 0.65, 0.7])
def test_a_stream_cut_anywhere_gives_the_ids_of_the_whole(kind: str, text: str, cuts: list[float]) -> None:
    tokenizer = trained(kind)
    pieces = pieces_of(text, cuts)
    assert "".join(tokenizer.parts(pieces)) == text
    streamed = [index for part in tokenizer.encode_stream(pieces) for index in part.tolist()]
    assert streamed == tokenizer.encode(text).tolist()


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, more=TEXTS)
def test_nothing_that_follows_changes_the_ids_before_the_cut(kind: str, text: str, more: str) -> None:
    tokenizer = trained(kind)
    cut = tokenizer.cut(text)
    assert 0 <= cut <= len(text)
    both = [*tokenizer.encode(text[:cut]), *tokenizer.encode(text[cut:] + more)]
    assert both == list(tokenizer.encode(text + more))


@pytest.mark.parametrize("kind", KINDS)
def test_every_character_of_real_prose_as_its_own_piece(kind: str) -> None:
    text = prose("wikitext-raw-valid.txt")[:20_000]
    tokenizer = trained(kind)
    assert np.array_equal(np.concatenate(list(tokenizer.encode_stream(text))), tokenizer.encode(text))


@pytest.mark.parametrize("separator", [" ", "\n", ", "])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_is_not_gathered_whole(kind: str, separator: str) -> None:
    pieces = [f"some words and a number 22{separator}"] * 1000
    assert max(map(len, trained(kind).parts(pieces))) < 10 * len(pieces[0])


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\t\r\n"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_one_word_a_line_is_not_gathered_whole(kind: str, separator: str) -> None:
    pieces = [f"word{separator}"] * 1000
    assert max(map(len, trained(kind).parts(pieces))) < 10 * len(pieces[0])


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_text_has_no_tokens(kind: str) -> None:
    tokenizer = trained(kind)
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode([]) == ""
    assert list(tokenizer.encode_stream(["", ""])) == []


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_ids_are_below_the_vocabulary_size(kind: str, text: str) -> None:
    ids = trained(kind).encode(text)
    assert ids.max(initial=0) < trained(kind).vocabulary_size


@pytest.mark.parametrize("kind", ["bpe", "bytes"])
@given(text=TEXTS)
def test_decode_undoes_encode(kind: str, text: str) -> None:
    tokenizer = trained(kind)
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


@given(text=TEXTS)
def test_bytes_are_the_bytes(text: str) -> None:
    assert ByteTokenizer().encode(text).tolist() == list(text.encode())


def test_half_a_character_decodes_to_a_replacement_sign() -> None:
    assert ByteTokenizer().decode("é".encode()[:1]) == "\ufffd"


# Words


def test_words_of_real_prose_are_those_of_findall() -> None:
    text = prose("wikitext-raw-valid.txt")
    expected = PUBLISHED_PATTERN.findall(text)
    every = ["<pad>", "<bos>", "<eos>", "<unk>", *dict.fromkeys(expected)]
    tokenizer = WordTokenizer(every)
    assert [tokenizer.itos[index] for index in tokenizer.encode(text)] == expected


@given(text=TEXTS)
def test_words_of_any_text_are_those_of_findall(text: str) -> None:
    expected = PUBLISHED_PATTERN.findall(text)
    specials = ["<pad>", "<bos>", "<eos>", "<unk>"]
    tokenizer = WordTokenizer([*specials, *dict.fromkeys(expected)])
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == "".join(expected)
    assert len(tokenizer.encode(text)) == len(expected)
    assert WordTokenizer(specials).encode(text).tolist() == [3] * len(expected)


@given(st.text(alphabet="ab \n.é", max_size=60), st.integers(1, 9))
def test_encoding_in_stretches_changes_nothing(text: str, stretch: int) -> None:
    tokenizer = WordTokenizer.train(["a b ab ba . aa\n\n"] * 2, 20)
    ids = {word: index for index, word in enumerate(tokenizer.itos)}
    expected = [ids.get(word, 3) for word in PUBLISHED_PATTERN.findall(text)]
    before, word_module.STRETCH = word_module.STRETCH, stretch
    try:
        assert tokenizer.encode(text).tolist() == expected
        assert "".join(tokenizer._short(text)) == text
    finally:
        word_module.STRETCH = before


def test_another_pattern_is_followed() -> None:
    tokenizer = WordTokenizer(["<pad>", "<bos>", "<eos>", "<unk>", "é", "a b"], pattern="é|a.b|.")
    assert tokenizer.encode("éa b c\n").tolist() == [4, 5, 3, 3]


def test_the_published_vocabulary(fixtures: Path) -> None:
    text = prose("wikitext-raw-valid.txt")[:400_000]
    saved = torch.load(fixtures / "dense_rmsnorm" / "last.pt", weights_only=True)["tokenizer"]["itos"]
    assert list(WordTokenizer.train([text], 600).itos) == list(saved)


@given(cuts=CUTS)
def test_the_vocabulary_does_not_depend_on_the_pieces(cuts: list[float]) -> None:
    assert WordTokenizer.train(pieces_of(PROSE, cuts), 40).itos == WordTokenizer.train([PROSE], 40).itos


def test_ties_are_in_alphabetical_order_and_frequent_words_first() -> None:
    words = WordTokenizer.train(["b,a,Z,c;b;a;Z;c;d,d,d"], 100).itos[4:]
    assert words == (",", ";", "d", "Z", "a", "b", "c")


def test_rare_words_and_words_beyond_the_vocabulary_get_no_entry() -> None:
    text = "a.a.a.b.b.c."
    assert WordTokenizer.train([text], 100).itos[4:] == (".", "a", "b")
    assert WordTokenizer.train([text], 100, min_count=1).itos[4:] == (".", "a", "b", "c")
    assert WordTokenizer.train([text], 100, min_count=3).itos[4:] == (".", "a")
    assert WordTokenizer.train([text], 6, min_count=1).itos[4:] == (".", "a")
    assert WordTokenizer.train([text], 6).encode("a.b.").tolist() == [5, 4, 3, 4]


@pytest.mark.parametrize("itos", [["a", "b"], ["<pad>", "<bos>", "<eos>", "<unk>", "a", "a"], []])
def test_a_word_vocabulary_that_cannot_be_is_refused(itos: list[str]) -> None:
    with pytest.raises(ValueError, match=f"this one has {len(itos)} entries"):
        WordTokenizer(itos)


# BPE


@pytest.mark.smoke
def test_bpe_training_repeats_exactly_whatever_the_pieces() -> None:
    pieces = pieces_of(PROSE, [0.11, 0.23, 0.231, 0.5, 0.77])
    first, again, cut = (BPETokenizer.train(texts, 320) for texts in ([PROSE], [PROSE], pieces))
    assert first.to_text() == again.to_text() == cut.to_text()
    assert first.hash != BPETokenizer.train([PROSE], 319).hash


def test_bpe_has_the_size_asked_for_and_shortens_what_it_was_trained_on() -> None:
    assert BPETokenizer.train([PROSE], 256).vocabulary_size == 256
    assert trained("bpe").vocabulary_size == 300
    assert len(trained("bpe").encode(PROSE)) < 0.7 * len(PROSE.encode())
    assert len(BPETokenizer.train([PROSE], 256).encode(PROSE)) == len(PROSE.encode())


def test_what_looks_like_a_special_token_is_text() -> None:
    """There are none: a text full of `<|endoftext|>` is encoded and decoded like any other."""
    text = "<|endoftext|>\nstory\n"
    for tokenizer in (trained("bpe"), BPETokenizer.train([text * 200], 300)):
        assert tokenizer.decode(tokenizer.encode(text)) == text


# JSON


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.smoke
def test_json_gives_the_same_tokenizer_back(kind: str, tmp_path: Path) -> None:
    tokenizer = trained(kind)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_text(), encoding="utf-8")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert type(again) is type(tokenizer)
    assert again.hash == tokenizer.hash
    assert re.fullmatch("[0-9a-f]{64}", again.hash)
    assert again.vocabulary_size == tokenizer.vocabulary_size
    text = PROSE + "日本 😀\u2028\x1c"
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_other_tokenizers_have_other_hashes() -> None:
    tokenizers = [trained(kind) for kind in KINDS]
    tokenizers += [WordTokenizer.train([PROSE], size) for size in (10, 11)]
    assert len({tokenizer.hash for tokenizer in tokenizers}) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a tokenizer of Loopscope"),
        ("[]", "is not a tokenizer of Loopscope"),
        ("{}", "is not a tokenizer of Loopscope"),
        (json.dumps({"kind": "sentencepiece"}), "'sentencepiece' is not known; known: word, bpe, bytes"),
        (json.dumps({"kind": "word", "pattern": "a"}), "is not a tokenizer of Loopscope.*itos"),
        (json.dumps({"kind": "word", "pattern": "a", "itos": ["a"]}), "starts with <pad>"),
        (
            json.dumps({"kind": "word", "pattern": "(", "itos": ["<pad>", "<bos>", "<eos>", "<unk>"]}),
            "is not",
        ),
        (json.dumps({"kind": "bpe", "tokenizer": {"version": "1.0"}}), "is not a tokenizer of Loopscope"),
        (json.dumps({"version": "1.0", "model": {"type": "BPE"}}), "is not a tokenizer of Loopscope.*format"),
    ],
)
def test_files_that_are_no_tokenizer_are_refused_by_name(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)


def test_a_missing_tokenizer_and_one_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json does not exist"):
        load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="does not exist"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json")
