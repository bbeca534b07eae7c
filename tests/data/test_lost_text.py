"""What a tokenizer loses of a text, counted by hand, and when it is said."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from loopscope.data.config import DataConfig, TokenizerConfig
from loopscope.data.lost_text import lost_text, lost_text_note
from loopscope.data.preparation import prepare
from loopscope.data.tokenizers import ByteTokenizer, FileTokenizer, WordTokenizer, train_tokenizer

WORDS = WordTokenizer(["<pad>", "<bos>", "<eos>", "<unk>", " ", "a", "bc"])


def of(tokenizer: object, text: str) -> tuple[float, float | None]:
    found = lost_text(tokenizer, tokenizer.encode(text), len(text.encode()))  # type: ignore[attr-defined]
    return found.unknown, found.unread


def test_shares_are_those_counted_by_hand() -> None:
    assert of(WORDS, "a bc a bc") == (0.0, 0.0)
    unknown, unread = of(WORDS, "a xyz bc q")  # tokens: a, space, ?, space, bc, space, ?; 4 bytes of 10
    assert (unknown, unread) == (pytest.approx(2 / 7), pytest.approx(0.4))
    skipped = of(WORDS, "a éé")  # letters beyond ASCII make no token at all: 4 bytes of 6
    assert skipped == (0.0, pytest.approx(4 / 6))
    assert of(ByteTokenizer(), "a éé ☃") == (0.0, 0.0)
    assert lost_text(WORDS, np.zeros(0, np.uint32), 0).unknown == 0.0


def test_a_tokenizer_file_names_its_unknown_token() -> None:
    library = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    assert of(FileTokenizer(library.to_str()), "a b a b") == (0.5, None)


def test_it_is_said_above_one_percent() -> None:
    assert lost_text_note(None, None) is None
    assert lost_text_note(0.01, 0.01) is None
    note = lost_text_note(0.083, 0.21)
    assert note is not None
    assert note.startswith(
        "8.3% of the tokens of the validation text are unknown to the tokenizer, and 21.0% of its bytes"
    )
    assert lost_text_note(0.0, 0.3) is not None  # skipped characters alone


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_prepared_corpus_knows_its_own(cache: object, tmp_path: object, kind: str) -> None:
    files = tmp_path / "text.txt"  # type: ignore[operator]
    files.write_text(
        "one two three four five six seven eight nine ten\n" * 40 + "rare\n" * 20 + "unheard of words\n" * 3
    )
    config = DataConfig(
        corpus="files",
        files=(str(files),),
        validation_fraction=0.2,
        tokenizer={"kind": kind, "vocabulary": 270 if kind == "bpe" else 14},  # type: ignore[arg-type]
    )
    lost = prepare(config, progress=False).lost
    assert (lost.unknown > 0.01) == (kind == "word")
    assert ((lost.unread or 0) > 0.01) == (kind == "word")


@pytest.mark.parametrize("kind", ["word", "bpe", "bytes"])
def test_ids_of_a_larger_vocabulary_are_no_error(kind: str) -> None:
    """A model may have more ids than its tokenizer, and name one of them."""
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind, vocabulary=300), ["the cat sat on the mat. " * 20])
    ids = tokenizer.encode("the cat")
    beyond = tokenizer.decode([*ids, tokenizer.vocabulary_size, tokenizer.vocabulary_size + 3000])
    assert beyond.rstrip("\ufffd") == tokenizer.decode(ids)
