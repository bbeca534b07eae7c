"""Tokenizer files: any `tokenizer.json`, its ids, its hash, and streams that equal the whole text."""

import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from loopscope.config.run_config import RunConfig
from loopscope.data.config import DataConfig, TokenizerConfig
from loopscope.data.preparation import open_prepared, prepare
from loopscope.data.tokenizers import FileTokenizer, load_tokenizer, train_tokenizer

PROSE = (
    "The cat sat on the mat.\nAnd the dog, 42 years old, said hello to 3 cats\nWhile the naïve café owner\n\n"
    "    def f(x):\n        return x_1 + 22\nIt was the best of times it was the worst of times\n"
) * 12

PIECES = st.sampled_from(
    [
        "the cat",
        " sat",
        "\n",
        "\n\n",
        "  ",
        "a\nb",
        "x",
        "42",
        " 7\nand",
        "é",
        "😀",
        "<|end|>",
        "\t",
        ".",
        "word",
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join)


def _trained(tokenizer: Tokenizer, trainer: trainers.Trainer) -> str:
    tokenizer.train_from_iterator([PROSE], trainer)
    return tokenizer.to_str()


@cache
def made(kind: str) -> str:
    """A tokenizer.json of each family in use."""
    special = ["<|end|>", "[UNK]"]
    match kind:
        case "gpt-2":  # byte-level BPE with its regular expression
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(
                vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
            )
        case "bert":  # word pieces, lower case, ends marked by a template
            tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
            tokenizer.normalizer = normalizers.BertNormalizer()
            tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
            trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
        case "sentencepiece":  # a mark before every word, also the first
            tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
            tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
            trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
        case _:  # Llama 2: one piece, with a mark where it begins; merges may cross anything
            tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
            tokenizer.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
            trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    text = _trained(tokenizer, trainer)
    if kind == "bert":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[UNK] $A <|end|>", special_tokens=[("[UNK]", 1), ("<|end|>", 0)]
        )
        tokenizer.enable_truncation(8)
        tokenizer.enable_padding(length=16)
        text = tokenizer.to_str()
    return text


KINDS = ["gpt-2", "bert", "sentencepiece", "llama 2"]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_the_librarys_without_what_it_adds_or_cuts(kind: str) -> None:
    plain = Tokenizer.from_str(made(kind))
    plain.no_truncation()
    plain.no_padding()
    tokenizer = FileTokenizer(made(kind))
    assert tokenizer.encode(PROSE).tolist() == plain.encode(PROSE, add_special_tokens=False).ids
    assert int(tokenizer.encode(PROSE).max()) < tokenizer.vocabulary_size


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, cuts=st.lists(st.floats(0, 1), max_size=6))
@settings(max_examples=40)
def test_a_stream_cut_anywhere_gives_the_ids_of_the_whole(kind: str, text: str, cuts: list[float]) -> None:
    tokenizer = FileTokenizer(made(kind))
    places = sorted({0, len(text), *(int(cut * len(text)) for cut in cuts)})
    pieces = [text[start:end] for start, end in pairwise(places)]
    streamed = [index for ids in tokenizer.encode_stream(pieces) for index in ids.tolist()]
    assert streamed == tokenizer.encode(text).tolist()


@pytest.mark.parametrize(("kind", "streams"), [(k, k != "llama 2") for k in KINDS])
def test_text_is_cut_where_that_is_safe_and_only_there(kind: str, streams: bool) -> None:
    tokenizer = FileTokenizer(made(kind))
    parts = list(tokenizer.parts([PROSE] * 20))
    assert tokenizer.streams is streams
    assert (len(parts) > 10) is streams
    assert "".join(parts) == PROSE * 20
    if streams:
        assert max(map(len, parts)) < 2 * len(PROSE)


def test_two_newlines_are_no_place_for_gpt_2() -> None:
    """Its expression leaves the last of several white spaces to what follows: "a\\n\\nb" is a, \\n, \\n, b."""
    tokenizer = FileTokenizer(made("gpt-2"))
    text = "a" * 60 + "\n\n" + "b" * 60
    assert tokenizer.cut(text) == 0
    assert tokenizer.cut("a" * 60 + "\n" + "b" * 60) == 61


def test_what_looks_like_a_special_token_is_text() -> None:
    tokenizer = FileTokenizer(made("gpt-2"))
    assert len(tokenizer.encode("<|end|>")) > 1
    assert tokenizer.decode(tokenizer.encode("<|end|> é\n")) == "<|end|> é\n"


@pytest.mark.parametrize("kind", KINDS)
def test_json_and_back_keeps_ids_and_hash(kind: str, tmp_path: Path) -> None:
    tokenizer = FileTokenizer(made(kind))
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_text(), encoding="utf-8")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert again.hash == tokenizer.hash
    assert np.array_equal(again.encode(PROSE), tokenizer.encode(PROSE))
    (tmp_path / "plain.json").write_text(made(kind), encoding="utf-8")
    assert load_tokenizer(tmp_path / "plain.json").hash == tokenizer.hash


def test_gaps_in_a_vocabulary_count() -> None:
    data = json.loads(made("bert"))
    data["model"]["vocab"]["[UNK]"] = 1
    largest = max(data["model"]["vocab"], key=data["model"]["vocab"].get)
    data["model"]["vocab"][largest] = 5000
    assert FileTokenizer(json.dumps(data)).vocabulary_size == 5001


def test_a_run_ingests_with_it_and_the_files_content_names_the_folder(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "text.txt").write_text(PROSE, encoding="utf-8")

    def config(name: str) -> DataConfig:
        tokenizer = {"kind": "file", "path": str(tmp_path / name)}
        return DataConfig(corpus="files", files=(str(tmp_path / "text.txt"),), tokenizer=tokenizer)

    for name, kind in (("a.json", "gpt-2"), ("b.json", "gpt-2"), ("c.json", "bert")):
        (tmp_path / name).write_text(made(kind), encoding="utf-8")
    first = prepare(config("a.json"), progress=False)
    assert open_prepared(first.directory).tokenizer.hash == FileTokenizer(made("gpt-2")).hash
    assert prepare(config("b.json"), progress=False).directory == first.directory
    assert prepare(config("c.json"), progress=False).directory != first.directory
    (tmp_path / "d.json").write_text(made("llama 2"), encoding="utf-8")
    with pytest.warns(UserWarning, match="sees a text as one piece"):
        prepare(config("d.json"), progress=False)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "tokenizer.json").write_text(made("gpt-2"), encoding="utf-8")
    assert prepare(config("folder"), progress=False).directory == first.directory


def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer.path.*does not exist; give a tokenizer.json"):
        train_tokenizer(TokenizerConfig(kind="file", path=str(tmp_path / "none.json")), ())
    (tmp_path / "bad.json").write_text('{"model": 3}')
    with pytest.raises(ValueError, match="not a tokenizer.json of the `tokenizers` format"):
        train_tokenizer(TokenizerConfig(kind="file", path=str(tmp_path / "bad.json")), ())
    for settings_ in ({"kind": "file"}, {"kind": "bpe", "path": "x"}):
        with pytest.raises(ValidationError, match="kind: file and path go together"):
            TokenizerConfig(**settings_)
    config = RunConfig(data={"tokenizer": {"kind": "file", "path": "x"}}, model={"vocabulary": 300})
    assert config.data.tokenizer.path == "x"  # its size is checked when it is read
