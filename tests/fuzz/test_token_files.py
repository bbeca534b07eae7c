"""Token files: the tokens that were written, or a sentence that names the file."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loopscope.data.tokenfile import HEADER_BYTES, open_tokens, write_tokens
from tests.fuzz.damage import DAMAGE, Damage, cases, damaged, said_of

HASH = "cd" * 32


@given(
    ids=st.lists(st.integers(0, 299), min_size=1, max_size=40),
    damage=DAMAGE,
    header=st.booleans(),
    checked=st.booleans(),
)
@cases()
def test_a_damaged_token_file(
    tmp_path: Path, ids: list[int], damage: list[Damage], header: bool, checked: bool
) -> None:
    path = tmp_path / "a.tokens"
    write_tokens(path, [(np.array(ids), 3 * len(ids))], 300, HASH)
    whole = path.read_bytes()
    split = HEADER_BYTES if header else 0  # half of the cases hit the header alone
    path.write_bytes(damaged(whole[:split], damage) + whole[split:] if header else damaged(whole, damage))
    found = []
    said = said_of(lambda: found.append(open_tokens(path, HASH if checked else None)), path)
    if said is None:
        # A seal of nothing but zeros, the rest whole, is that of a file from before there were seals.
        assert path.read_bytes() == whole or not any(path.read_bytes()[100:HEADER_BYTES])
        assert path.read_bytes() != whole or found[0].tokens.tolist() == ids
        assert found[0].bytes == 3 * len(ids)
