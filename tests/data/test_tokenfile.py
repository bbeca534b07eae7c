"""Token files: what is written is read, and whatever is not whole is refused by its name."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.data import tokenfile
from loopscope.data.tokenfile import HEADER_BYTES, open_tokens, write_tokens

HASH = "ab" * 32


def written(path: Path, ids: list[int], vocabulary: int = 300) -> Path:
    write_tokens(path, [(np.array(ids, dtype=np.uint32), 5 * len(ids))], vocabulary, HASH)
    return path


@pytest.mark.parametrize(("vocabulary", "width"), [(256, 2), (2**16, 2), (2**16 + 1, 4), (2**20, 4)])
def test_the_highest_id_fits_and_small_vocabularies_take_two_bytes(
    vocabulary: int, width: int, tmp_path: Path
) -> None:
    ids = [0, 1, vocabulary - 1, 0]
    path = written(tmp_path / "a.tokens", ids, vocabulary)
    found = open_tokens(path, HASH)
    assert found.tokens.tolist() == ids
    assert found.tokens.dtype.itemsize == width
    assert path.stat().st_size == HEADER_BYTES + width * len(ids)


@given(
    chunks=st.lists(st.tuples(st.lists(st.integers(0, 2**17 - 1)), st.integers(0, 2**40)), max_size=5),
    vocabulary=st.sampled_from([2**16, 2**17]),
)
def test_chunks_come_back_as_one(chunks: list[tuple[list[int], int]], vocabulary: int) -> None:
    chunks = [([i % vocabulary for i in ids], size) for ids, size in chunks]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tokens"
        write_tokens(path, ((np.array(ids, dtype=np.int64), size) for ids, size in chunks), vocabulary, HASH)
        found = open_tokens(path, HASH)
        assert found.tokens.tolist() == [i for ids, _ in chunks for i in ids]
        assert found.bytes == sum(size for _, size in chunks)
        assert found.count == len(found.tokens)
        assert [entry.name for entry in Path(folder).iterdir()] == ["a.tokens"]


def test_the_header_says_what_the_ids_mean(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tokens", [7, 8, 9, 7], 12_345)
    found = open_tokens(path)
    assert (found.path, found.count, found.bytes) == (path, 4, 20)
    assert (found.vocabulary_size, found.tokenizer_hash) == (12_345, HASH)
    assert found.bytes_per_token == 5


def test_tokens_are_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    found = open_tokens(written(tmp_path / "a.tokens", [1, 2, 3]))
    assert isinstance(found.tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found.tokens[0] = 9


def test_an_empty_one(tmp_path: Path) -> None:
    write_tokens(tmp_path / "a.tokens", [], 300, HASH)
    found = open_tokens(tmp_path / "a.tokens", HASH)
    assert (found.count, found.bytes, found.tokens.shape) == (0, 0, (0,))


@pytest.mark.parametrize("change", [-6, -1, 1, 128])
def test_cut_and_padded_files_are_refused_with_both_sizes(change: int, tmp_path: Path) -> None:
    path = written(tmp_path / "a.tokens", [1, 2, 3])
    whole = path.read_bytes()
    path.write_bytes(whole[:change] if change < 0 else whole + bytes(change))
    message = rf"a\.tokens has {len(whole) + change} bytes, its header says {len(whole)}: it is cut short"
    with pytest.raises(ValueError, match=message):
        open_tokens(path)


@pytest.mark.parametrize("content", [b"", b"LOOPTOK1", b"some text\n" * 100, b"LOOPTOK1" + bytes(119)])
def test_foreign_files_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tokens is not a token file of Loopscope"):
        open_tokens(path)


@given(junk=st.binary(min_size=HEADER_BYTES - 8, max_size=400))
def test_a_damaged_header_is_a_value_error(junk: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tokens"
        path.write_bytes(b"LOOPTOK1" + junk)
        with pytest.raises(ValueError, match=r"a\.tokens .*(cut short or damaged|another tokenizer)"):
            open_tokens(path, HASH)


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "a.tokens", tmp_path):
        with pytest.raises(ValueError, match="does not exist; delete its folder"):
            open_tokens(path)


def test_ids_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tokens", [1])
    with pytest.raises(ValueError, match=r"a\.tokens was made with another tokenizer \(hash abab.*cdcd"):
        open_tokens(path, "cd" * 32)


def failing() -> Iterator[tuple[np.ndarray, int]]:
    yield np.array([1, 2]), 2
    raise RuntimeError("the disk of the corpus went away")


def test_a_writer_that_fails_midway_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    with pytest.raises(RuntimeError, match="went away"):
        write_tokens(path, failing(), 300, HASH)
    assert not path.exists()
    written(path, [1, 2, 3])
    with pytest.raises(RuntimeError, match="went away"):
        write_tokens(path, failing(), 300, HASH)
    assert open_tokens(path).tokens.tolist() == [1, 2, 3]


def test_changed_ids_and_a_changed_header_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tokens", [7, 8, 9, 7])
    whole = path.read_bytes()
    zeros = whole[:HEADER_BYTES] + bytes(len(whole) - HEADER_BYTES)
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    more_text = (
        whole[:20] + bytes([whole[20] ^ 1]) + whole[21:]
    )  # bytes of the text: bits per byte rest on them
    bound = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]  # the largest id
    for content in (zeros, flipped, more_text, bound):
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.tokens was changed after it was written, or is damaged"):
            open_tokens(path, HASH)
    path.write_bytes(whole)
    assert open_tokens(path, HASH).tokens.tolist() == [7, 8, 9, 7]


def test_ids_that_the_vocabulary_does_not_have_are_neither_written_nor_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    for ids, wrong in (([1, 300], 300), ([2**16 + 1], 2**16 + 1), ([-1], -1)):
        with pytest.raises(ValueError, match=rf"has id {wrong}; its vocabulary has ids 0 to 299"):
            write_tokens(path, [(np.array(ids, dtype=np.int64), 1)], 300, HASH)
        assert not path.exists()


def test_a_file_from_before_it_had_a_hash_is_read_for_its_ids(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tokens", [7, 8, 9, 7])
    whole = path.read_bytes()
    older = whole[:100] + bytes(28) + whole[HEADER_BYTES:]
    path.write_bytes(older)
    assert open_tokens(path, HASH).tokens.tolist() == [7, 8, 9, 7]
    path.write_bytes(older[:-2] + (300).to_bytes(2, "little"))
    with pytest.raises(ValueError, match=r"a\.tokens has id 300; its vocabulary has ids 0 to 299"):
        open_tokens(path, HASH)


def test_a_file_that_stays_is_read_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.tokens", list(range(200)))
    open_tokens(path, HASH)
    monkeypatch.setattr(tokenfile, "CHUNK_BYTES", None)  # reading it again would fail
    assert open_tokens(path, HASH).count == 200


def test_a_header_that_lost_its_seal_and_more_is_damaged(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tokens", [0, 1, 2])
    whole = path.read_bytes()
    path.write_bytes(whole[:70] + bytes(HEADER_BYTES - 70) + whole[HEADER_BYTES:])
    with pytest.raises(ValueError, match=r"a\.tokens has a damaged header"):
        open_tokens(path)
    path.write_bytes(whole[:110] + bytes(HEADER_BYTES - 110) + whole[HEADER_BYTES:])
    with pytest.raises(ValueError, match=r"a\.tokens"):
        open_tokens(path)
