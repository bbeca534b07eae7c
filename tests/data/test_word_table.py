"""The word table: numbers, places and counts are those of `re.findall` and a dict."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.data.tokenizers.word_table import PATTERN, WordTable, count_words

SPACES = ["\n", " ", " " * 8, "\n" + " " * 15, "\n" + " " * 16, "\x1c", "\x85", "\u00a0 ", "\u2028", "\0"]
WORDS = ["a", "ab", "b_2", "eightchr", "ninechars", "exactlysixteen16", "longerthansixteen", "x" * 40]
SIGNS = [".", "?", "“", "é", "日本", "😀", "\ud800", "\x7f"]
TEXTS = st.one_of(
    st.lists(st.sampled_from(SPACES + WORDS + SIGNS), max_size=40).map("".join), st.text(max_size=60)
)


@given(text=TEXTS, data=st.data())
def test_numbers_and_places_are_those_of_findall_and_a_dict(text: str, data: st.DataObject) -> None:
    found = list(re.finditer(PATTERN, text))
    tokens = [match.group() for match in found]
    words = data.draw(st.lists(st.sampled_from([*tokens, *WORDS, *SPACES]), unique=True))
    numbers = {word: number for number, word in enumerate(words)}
    ids, starts, ends = WordTable(words, absent=len(words)).find(text)
    assert ids.tolist() == [numbers.get(token, len(words)) for token in tokens]
    assert list(zip(starts.tolist(), ends.tolist(), strict=True)) == [match.span() for match in found]


@pytest.mark.slow
def test_every_character_is_what_re_takes_it_for() -> None:
    text = "".join(map(chr, range(0x110000)))
    ids, starts, ends = WordTable(["\u3000"], absent=1).find(text)
    found = list(re.finditer(PATTERN, text))
    assert starts.tolist() == [match.start() for match in found]
    assert ends.tolist() == [match.end() for match in found]
    assert np.flatnonzero(ids == 0).tolist() == [
        place for place, match in enumerate(found) if match.group() == "\u3000"
    ]


@pytest.mark.parametrize("length", [1, 3, 8, 9, 16, 17])
def test_crowded_tables_find_every_word_and_no_other(length: int) -> None:
    """Words that share all but a few characters, as many as collide in a table."""
    words = list(dict.fromkeys(f"{number:x}".rjust(length, "0")[:length] for number in range(20_000)))
    entered, left_out = words[::2], words[1::2]
    table = WordTable(entered, absent=len(entered))
    assert table.find(".".join(entered))[0][::2].tolist() == list(range(len(entered)))
    assert (table.find(".".join(left_out))[0] == len(entered)).all()


def test_entries_that_are_no_token_are_never_found() -> None:
    table = WordTable(["a\0", "\0\0", "a b", "<unk>", "", "é"], absent=9)
    assert table.find("a a\0\0 a b<unk>é")[0].tolist() == [9] * len(re.findall(PATTERN, "a a\0\0 a b<unk>é"))
    assert WordTable([], absent=9).find("a \0")[0].tolist() == [9, 9, 9]


@given(st.lists(TEXTS, max_size=8))
def test_counts_are_those_of_findall(texts: list[str]) -> None:
    expected = Counter(word for text in texts for word in re.findall(PATTERN, text))
    assert count_words(texts) == expected
