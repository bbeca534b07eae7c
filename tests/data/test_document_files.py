"""Files of documents: every kind gives the same rows, and damage is told with its file and line."""

import csv
import gzip
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopscope.data.config import DataConfig
from loopscope.data.corpora import FilesCorpus, HuggingFaceCorpus
from loopscope.data.corpora.document_files import read_documents, text_bytes
from loopscope.data.preparation import prepare
from tests.data.fixtures import both

ROWS = [f'row {number} é😀, "quoted"\nand a second line' for number in range(2000)]
ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")


def table(path: Path, rows: list[Any], column: str = "text") -> Path:
    """Write a table with two columns, whatever its ending says."""
    kind = path.name.removesuffix(".gz")
    if kind.endswith(".parquet"):
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        columns = {"id": list(range(len(rows))), column: rows}
        parquet.write_table(arrow.table(columns), path, row_group_size=500)
        return path
    if kind.endswith(".csv"):
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerows([["id", column], *enumerate(rows)])
        raw = text.getvalue().encode()
    else:
        raw = "".join(json.dumps({"id": n, column: row}) + "\n" for n, row in enumerate(rows)).encode()
    path.write_bytes(gzip.compress(raw) if path.name.endswith(".gz") else raw)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_kind_holds_the_same_rows(ending: str, tmp_path: Path) -> None:
    path = table(tmp_path / f"a{ending}", [*ROWS, "", "  \n"], "body")
    assert list(read_documents(path, "body")) == ROWS
    text = sum(len(row.encode()) for row in ROWS)
    assert text_bytes(path, "body") == pytest.approx(text, rel=0.35)  # an estimate, from the first megabyte
    corpus = FilesCorpus([str(path)], [], 0.1, "body")
    train, held_out = (list(corpus.documents(part)) for part in (False, True))
    assert held_out[::2] == ROWS[9::10]
    assert train[1::2] == [None] * 1800
    assert sorted([*train[::2], *held_out[::2]]) == sorted(ROWS)
    joined, _ = both(corpus)
    assert joined == "\n\n".join(row for number, row in enumerate(ROWS) if number % 10 != 9)


def test_texts_and_tables_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"first\r\nline"))
    table(tmp_path / "b.jsonl", ["one", "two"])
    (tmp_path / "c.txt").write_text("last\n")
    held = table(tmp_path / "held.csv", ["held out"])
    names = [str(tmp_path / name) for name in ("a.txt.gz", "b.jsonl", "c.txt")]
    corpus = FilesCorpus(names, [str(held)], 0.5)
    assert both(corpus) == ("first\r\nline\n\none\n\ntwo\n\nlast\n", "held out")
    assert list(corpus.documents(False)) == ["first\r\nline", None, "one", None, "two", None, "last\n", None]


def test_the_end_of_a_compressed_text_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"0123456789" * 1000))
    train, held_out = both(FilesCorpus([str(tmp_path / "a.txt.gz")], [], 0.1))
    assert (len(train), train + held_out) == (9000, "0123456789" * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    middle = int(0.45 * len(raw))  # in a column that is read
    raw[middle : middle + 200] = bytes(200 * [0xFF])
    path.write_bytes(raw)


def wrong_line(path: Path) -> None:
    lines = path.read_text().split("\n")
    lines[1500] = '{"id": 3, "text": "oops'
    path.write_text("\n".join(lines))


def wrong_cells(path: Path) -> None:
    path.write_text("id,text\n1,one\n2,two,three\n")


@pytest.mark.parametrize(
    ("ending", "harm", "message"),
    [
        (
            ".jsonl",
            wrong_line,
            r"a\.jsonl, line 1501: not JSON \(Unterminated string .*, column 19\); correct or",
        ),
        (".jsonl.gz", cut, r"a\.jsonl\.gz is damaged or cut short .*, after line \d+; restore it"),
        (".jsonl.gz", flipped, r"a\.jsonl\.gz is damaged or cut short .*, after line \d+"),
        (".jsonl", lambda path: path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n'), "is not UTF-8 text"),
        (".jsonl", lambda path: path.write_text('["a"]\n'), "line 1: a list, not a row of columns"),
        (
            ".jsonl",
            lambda path: path.write_text('[\n{"text": "a"}]\n'),
            r"a list is begun, .*: jq -c '\.\[\]' FILE",
        ),
        (
            ".jsonl",
            lambda path: path.write_text('{"text": 3}\n'),
            "line 1: column 'text' holds a int, not text",
        ),
        (
            ".jsonl",
            lambda path: path.write_text('{"body": "a", "id": 1}\n'),
            "no column 'text'.*are: body, id",
        ),
        (".csv", wrong_cells, r"a\.csv, line 3: not as many columns as the 2 of its first line"),
        (".csv", lambda path: path.write_text("id,body\n1,a\n"), "no column 'text'.*are: id, body"),
        (".csv.gz", cut, r"a\.csv\.gz is damaged or cut short"),
        (".parquet", cut, r"a\.parquet is no Parquet file, or is damaged"),
        (".parquet", flipped, r"a\.parquet is damaged or cut short .*, after row \d+"),
    ],
)
def test_damage_is_told_with_its_place(
    ending: str, harm: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = table(tmp_path / f"a{ending}", ROWS)
    harm(path)
    with pytest.raises(ValueError, match=message):
        list(read_documents(path, "text"))
    with pytest.raises(ValueError, match=message):
        list(FilesCorpus([str(path)], [], 0.1).train())


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv"])
def test_a_mark_of_byte_order_is_passed_over(ending: str, tmp_path: Path) -> None:
    """Windows' editors write one."""
    plain = table(tmp_path / f"a{ending.removesuffix('.gz')}", ["one", "two"]).read_bytes()
    marked = tmp_path / f"marked{ending}"
    raw = b"\xef\xbb\xbf" + plain
    marked.write_bytes(gzip.compress(raw) if ending.endswith(".gz") else raw)
    assert list(read_documents(marked, "text")) == ["one", "two"]
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone, two")
    assert "".join(both(FilesCorpus([str(tmp_path / "a.txt")], [], 0.3))) == "one, two"


@pytest.mark.parametrize(
    ("name", "way"), [("a.json", "jsonl: jq"), ("a.json.gz", "jsonl: jq"), ("a.tsv", "csv, with")]
)
def test_what_is_read_as_it_stands_and_looks_like_a_table_is_told_once(
    name: str, way: str, tmp_path: Path
) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        text = json.dumps([{"text": "a row"}] * 200).encode()
        (tmp_path / folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    data = {"files": [str(tmp_path / "*" / name)], "tokenizer": "bytes", "cache": str(tmp_path / "cache")}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepare(DataConfig(**data), progress=False)
    (said,) = [str(each.message) for each in caught]
    assert f"{name} is read as it stands, its signs and names too; for documents make" in said
    assert way in said


def test_a_local_dataset_tells_of_its_damage_too(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    flipped(table(tmp_path / "train.jsonl.gz", ROWS))
    table(tmp_path / "validation.jsonl.gz", ROWS[:3])
    with pytest.raises(ValueError, match=r"train\.jsonl\.gz is damaged or cut short .*, after line \d+"):
        list(HuggingFaceCorpus(DataConfig(corpus=str(tmp_path))).train())


def test_a_file_that_is_no_dataset_is_for_files(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    path = table(tmp_path / "a.csv", ["one"])
    with pytest.raises(ValueError, match=r"a file is data\.files: "):
        list(HuggingFaceCorpus(DataConfig(corpus=str(path), validation_split=None)).train())


def test_the_size_of_lines_that_are_no_records_is_asked_without_harm(tmp_path: Path) -> None:
    """Reading them says what is wrong, with the line."""
    path = tmp_path / "odd.jsonl"
    path.write_text('1\n{"text": "abcd"}\n')
    assert 0 <= text_bytes(path, "text") <= path.stat().st_size
