"""Files of documents, one a row: JSON lines, CSV, Parquet; and what is compressed with gzip. All are streamed.

Damage is told with the file and the line or row that it was found at. Memory: a line of text, a batch of a Parquet
file's rows, or one of its row groups where these are larger.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopscope.optional_packages import require

TABLES = (".jsonl", ".ndjson", ".csv", ".parquet")
"""Endings of files that hold a document a row, before `.gz`."""
ROWS_AT_ONCE = 512
"""Of a Parquet file, read at once."""
SAMPLED = 2**20
"""Bytes of a file that its size as text is estimated from."""
LONGEST_CELL = 2**31 - 1
"""Characters of a CSV file's cell."""


def is_table(path: Path) -> bool:
    """Return whether a file holds a document a row, by its name."""
    return _ending(path) in TABLES


def unread_structure(path: Path) -> str | None:
    """Return what to say of a file that is read as plain text, and whose name says that it is a table; else None."""
    ways = {
        ".json": "for documents make a row a line, .jsonl: jq -c '.[]' FILE",
        ".tsv": "for documents make it .csv, with commas",
    }
    way = ways.get(_ending(path))
    return None if way is None else f"{path} is read as it stands, its signs and names too; {way}"


def is_compressed(path: Path) -> bool:
    """Return whether a file is compressed, by its name."""
    return path.suffix.lower() == ".gz"


def read_documents(path: Path, column: str) -> Iterator[str]:
    """Yield the documents of a table's file that are not blank, in order.

    Args:
        column: with the text.

    Raises:
        ValueError: the file is damaged, or no such table; no such column, with those that there are; a value that is no
            text. Names the file and the line or row.
    """
    reader = {".csv": _csv, ".parquet": _parquet}.get(_ending(path), _json_lines)
    for where, value in reader(path, column):
        if value is not None and not isinstance(value, str):
            raise ValueError(
                f"{path}, {where}: column {column!r} holds a {type(value).__name__}, not text; name another "
                "(data.text_column)"
            )
        if value and value.strip():
            yield value


@contextmanager
def opened_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a text file, through gzip where its name ends so, line ends kept; a mark of byte order before it is none."""
    with gzip.open(path, "rb") if is_compressed(path) else path.open("rb") as file:
        yield io.TextIOWrapper(file, encoding="utf-8-sig", newline="")


def damage(path: Path, error: Exception, where: str) -> ValueError:
    """Return what to raise for a file that cannot be read to its end."""
    if isinstance(error, UnicodeDecodeError):
        return ValueError(f"{path} is not UTF-8 text ({error.reason}, {where}); convert it first")
    return ValueError(f"{path} is damaged or cut short ({error}), {where}; restore it from a copy")


DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError)
"""What reading raises where a file is damaged."""


def text_bytes(path: Path, column: str) -> int:
    """Return about how many bytes of text a file holds: exactly for plain text, from its beginning for the rest."""
    size = path.stat().st_size
    if _ending(path) == ".parquet":
        return _parquet_bytes(path, column)
    try:
        if is_compressed(path):
            with gzip.open(path, "rb") as file:
                raw = len(file.read(SAMPLED))
                took = file.fileobj.tell() if raw == SAMPLED else size  # type: ignore[union-attr]
            size = int(size * raw / max(1, took))
        if is_table(path):
            return int(size * _text_share(path, column))
    except (ValueError, *DAMAGE):
        pass  # told where it is read
    return size


def _ending(path: Path) -> str:
    return (Path(path.stem).suffix if is_compressed(path) else path.suffix).lower()


def _text_share(path: Path, column: str) -> float:
    """Bytes of text over bytes of file, in the first megabyte."""
    text = whole = 0
    with opened_text(path) as file:
        head = file.read(SAMPLED)
    whole = len(head.encode("utf-8"))
    lines = head[: head.rfind("\n") + 1] or head
    rows: Iterator[dict[str, Any]] = (
        csv.DictReader(io.StringIO(lines, newline=""))
        if _ending(path) == ".csv"
        else (json.loads(line) for line in lines.splitlines() if line.strip())
    )
    for row in rows:
        if isinstance(row, dict):  # any other is told of where it is read
            text += len(str(row.get(column) or "").encode("utf-8"))
    return text / max(1, whole)


def _json_lines(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    number = 0
    try:
        with opened_text(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(
                        line.rstrip("\r\n")
                    )  # which a text that is not ended would take for its own
                except (ValueError, RecursionError) as error:
                    _to_the_end(file)
                    raise ValueError(f"{path}, line {number}: {_no_json(line, error)}") from None
                if not isinstance(row, dict):
                    raise ValueError(
                        f"{path}, line {number}: a {type(row).__name__}, not a row of columns by name"
                    )
                if column not in row:
                    raise no_column(f"{path}, line {number}", column, row)
                yield f"line {number}", row[column]
    except DAMAGE as error:
        raise damage(path, error, f"after line {number}") from error


def _no_json(line: str, error: Exception) -> str:
    """Why a line is not JSON, and what to do."""
    if line.lstrip().startswith("["):
        return "a list is begun, and not a row; of one list of rows make a row a line: jq -c '.[]' FILE"
    where = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
    return f"not JSON ({where}); correct or remove it"


def _to_the_end(file: io.TextIOWrapper) -> None:
    """Read on, so that what looks like a wrong line shows as the damage that it is where gzip's sums do not fit."""
    while file.read(SAMPLED):
        pass


def _csv(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    before = csv.field_size_limit(LONGEST_CELL)
    reader = None
    try:
        with opened_text(path) as file:
            reader = csv.DictReader(file, strict=True)
            if column not in (reader.fieldnames or ()):
                raise no_column(f"{path}, line 1", column, reader.fieldnames or ())
            for row in reader:
                if None in row or None in row.values():
                    _to_the_end(file)
                    raise ValueError(
                        f"{path}, line {reader.line_num}: not as many columns as the {len(reader.fieldnames or ())} of "
                        "its first line; correct or remove it"
                    )
                yield f"line {reader.line_num}", row[column]
    except (csv.Error, *DAMAGE) as error:
        where = f"after line {reader.line_num if reader else 0}"
        raise damage(path, error, where) from error
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    number = 0
    try:
        with _parquet_file(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise no_column(str(path), column, names)
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=[column]):
                for value in batch.column(0):
                    number += 1
                    yield f"row {number}", value.as_py()
    except Exception as error:  # pyarrow raises a dozen kinds where a page is damaged
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise  # told already
        raise damage(path, error, f"after row {number}") from error


def _parquet_bytes(path: Path, column: str) -> int:
    try:
        with _parquet_file(path) as file:
            found, sizes = file.metadata, 0
            for group in range(found.num_row_groups):
                chunks = (found.row_group(group).column(index) for index in range(found.num_columns))
                sizes += sum(
                    chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column
                )
            return sizes
    except (OSError, ValueError):
        return path.stat().st_size  # told where it is read


@contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    require(f"Parquet file {path}", "pyarrow")
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path, memory_map=False, pre_buffer=False)
    except (ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{path} is no Parquet file, or is damaged ({error}); restore it from a copy"
        ) from error
    with file:
        yield file


def no_column(where: str, column: str, there: Any) -> ValueError:
    """Return what to raise for a column that is missing, with those that there are."""
    return ValueError(
        f"{where}: no column {column!r} (data.text_column); there are: {', '.join(map(str, there))}"
    )
