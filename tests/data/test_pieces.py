"""Cutting and joining text: nothing is lost, nothing is read beyond a limit, and what cannot be read is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.data.corpora import (
    FilesCorpus,
    cap_bytes,
)
from loopscope.data.corpora.base import PIECE, join_documents, read_pieces
from tests.data.fixtures import WIDE, both


@given(pieces=st.lists(WIDE), limit=st.integers(1, 300))
def test_capped_is_the_longest_prefix_of_whole_characters(pieces: list[str], limit: int) -> None:
    text = "".join(pieces)
    expected = max((text[:n] for n in range(len(text) + 1) if len(text[:n].encode()) <= limit), key=len)
    assert "".join(cap_bytes(pieces, limit)) == expected
    assert "".join(cap_bytes(pieces, None)) == text


def test_capped_stops_reading_at_the_limit() -> None:
    def endless():
        for index in range(100):
            assert index < 4, "read on after the limit"
            yield "abc"

    assert "".join(cap_bytes(endless(), 12)) == "abc" * 4


@given(documents=st.lists(WIDE), separator=st.sampled_from(["\n\n", "", "--"]))
def test_joined_is_str_join(documents: list[str], separator: str) -> None:
    assert "".join(join_documents(documents, separator)) == separator.join(documents)


def test_joined_comes_in_pieces_of_about_a_megabyte() -> None:
    documents = ["x" * (PIECE // 3)] * 20
    pieces = list(join_documents(documents))
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
    with pytest.raises(
        ValueError, match=r"latin\.txt is not UTF-8 text \(.*(at byte|after) [\d,]+.*\); convert it"
    ):
        list(read_pieces(tmp_path / "latin.txt"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8"):
        both(FilesCorpus([str(tmp_path / "latin.txt")], [], 0.5))
