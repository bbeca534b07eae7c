"""Files of any bytes as a corpus: tokens that stand for the text, or a sentence that names the file."""

import gzip
import warnings
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from loopscope.data.config import DataConfig
from loopscope.data.preparation import prepare
from tests.data.fixtures import KINDS
from tests.fuzz.damage import DAMAGE, Damage, cases, damaged, said_of

TEXT = b"The state grows.\r\nThe loss is blind: \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\n" * 40
ROWS = {
    ".txt": TEXT,
    ".jsonl": b'{"text": "The state grows, and nothing sees it."}\n' * 60,
    ".csv": b"text,n\n" + b'"The state grows, ""and"" nothing sees it.",1\n' * 60,
}


@given(
    kind=st.sampled_from(sorted(KINDS)),
    ending=st.sampled_from(sorted(ROWS)),
    packed=st.booleans(),
    damage=st.lists(DAMAGE, min_size=1, max_size=2),
    raw=st.none() | st.binary(max_size=200),
)
@example(kind="bytes", ending=".txt", packed=False, damage=[[]], raw=b"\x00\xff" * 90)
@cases()
def test_a_corpus_of_any_bytes(
    tmp_path: Path,
    kind: str,
    ending: str,
    packed: bool,
    damage: list[list[Damage]],
    raw: bytes | None,
) -> None:
    """Damage comes before packing, and after it."""
    data = damaged(ROWS[ending], damage[0]) if raw is None else raw * 8
    if packed:
        data = gzip.compress(data, mtime=0)
        data = damaged(data, damage[1]) if len(damage) > 1 else data
    path = tmp_path / f"a{ending}{'.gz' * packed}"
    path.write_bytes(data)
    held_out = tmp_path / "held-out.txt"
    held_out.write_bytes(TEXT)
    config = DataConfig(
        corpus="files",
        files=(str(path),),
        validation_files=(str(held_out),),
        cache=str(tmp_path / "cache"),
        tokenizer={"kind": kind, **({"vocabulary": 300} if kind != "bytes" else {})},
    )
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = said_of(lambda: found.append(prepare(config, progress=False)), path, "validation", "training")
    if said is not None:
        return
    tokens = found[0].train
    assert tokens.count > 0
    if kind == "bytes" and ending == ".txt" and not packed and valid(data):
        assert bytes(tokens.tokens.astype("uint8")).decode() == data.decode()
        assert tokens.bytes == len(data.decode().encode())


def valid(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
