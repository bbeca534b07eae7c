"""Text as it comes: nothing is lost, no half character is shown, stop strings are found wherever tokens meet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.data.tokenizers import AbstractTokenizer, BPETokenizer, ByteTokenizer, WordTokenizer
from loopscope.generation.stopping import Ending, Stopping, StopStrings
from loopscope.generation.streaming import IncrementalDecoder

TEXT = "a näïve café, 東京 🙂🙃 x = y\n" * 3
TOKENIZERS: dict[str, AbstractTokenizer] = {
    "bytes": ByteTokenizer(),
    "bpe": BPETokenizer.train([TEXT * 5], 300),
    "word": WordTokenizer.train([TEXT * 5], 60),
}
SMALL = st.text(alphabet="aéb🙂 \n", max_size=30)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.one_of(SMALL, st.just(TEXT)), cut=st.integers(0, 20))
@pytest.mark.smoke
def test_streamed_text_is_the_decoded_text(name: str, text: str, cut: int) -> None:
    tokenizer = TOKENIZERS[name]
    ids = [int(token) for token in tokenizer.encode(text)]
    stream = IncrementalDecoder(tokenizer)
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids)
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)
    # After a prompt that ends anywhere, also inside a character.
    prompt, rest = ids[:cut], ids[cut:]
    stream = IncrementalDecoder(tokenizer, prompt)
    said = "".join(map(stream.push, rest)) + stream.flush()
    assert tokenizer.decode(ids).endswith(said)
    assert tokenizer.decode(prompt).rstrip("\ufffd") + said == tokenizer.decode(ids)


def test_characters_are_held_back_until_they_are_whole() -> None:
    stream = IncrementalDecoder(ByteTokenizer())
    assert [stream.push(byte) for byte in "é🙂".encode()] == ["", "é", "", "", "", "🙂"]


def test_bytes_that_never_make_a_character_come_at_the_end() -> None:
    stream = IncrementalDecoder(ByteTokenizer())
    assert [stream.push(byte) for byte in (97, 0xE2, 0x82)] == ["a", "", ""]
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


@given(
    st.text(alphabet="ab\n", max_size=25),
    st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), min_size=1, max_size=3),
    st.data(),
)
def test_stop_strings_cut_where_they_would_in_the_whole_text(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    finder, shown, hit = StopStrings(stops), "", False
    for piece in pieces:
        more, hit = finder.push(piece)
        shown += more
        if hit:
            break
    if not hit:
        shown += finder.flush()
    # A string is found as soon as it is complete, so among those that overlap the one that ends first counts.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert hit == bool(ends)
    if not hit:
        assert shown == text
    else:
        assert text.startswith(shown)
        assert all(stop not in shown for stop in stops)
        assert any(text[len(shown) :].startswith(stop) for stop in stops)


def test_a_stop_string_across_tokens_ends_a_row_and_is_not_shown() -> None:
    ending = Ending(Stopping(99, stop=("END",)), ByteTokenizer(), b"")
    said = [ending.push(byte) for byte in b"xE ENDy"[:6]]
    assert said == [("x", None), ("", None), ("E ", None), ("", None), ("", None), ("", "stop")]


def test_what_was_held_back_comes_with_the_last_token() -> None:
    ending = Ending(Stopping(3, stop=("END",)), ByteTokenizer(), b"")
    assert [ending.push(byte) for byte in b"xEN"] == [("x", None), ("", None), ("EN", "length")]


def test_an_end_token_has_no_text() -> None:
    ending = Ending(Stopping(9, eos=(33,)), ByteTokenizer(), b"")
    assert [ending.push(byte) for byte in b"a!"] == [("a", None), ("", "eos")]
