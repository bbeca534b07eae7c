"""The record of a logit lens against every exit's own softmax, and where a token settles."""

import math

import pytest
import torch

import loopscope
from loopscope.evaluation.lens.exit_guesses import logit_lens, settled_at
from loopscope.results import LogitLens, decode, to_json
from loopscope.results.codec import json_object
from tests.evaluation.lens.fixtures import DEPTH, IDS, lens_case


def made(name: str) -> LogitLens:
    seen = loopscope.lens(lens_case(name)[2], IDS[:1], DEPTH)
    return logit_lens(seen, lambda ids: f"<{ids[0]}>", name, "a text", 123, top=3)


@pytest.mark.parametrize("name", ["own, sandwich, gate", "dory", "hrm", "ouro"])
def test_every_exit_says_what_its_softmax_says(name: str) -> None:
    record = made(name)
    model = lens_case(name)[2]
    ids = IDS[0].tolist()
    with torch.no_grad():
        states = list(loopscope.unroll(model, IDS[:1], DEPTH))
        shares = [state.logits()[0].float().softmax(dim=-1) for state in states]
    assert record.token_ids == tuple(ids)
    assert record.token_texts == tuple(f"<{token}>" for token in ids)
    assert [loop.loop for loop in record.loops] == list(range(1, DEPTH + 1))
    for loop, state, share in zip(record.loops, states, shares, strict=True):
        for place, token in enumerate(loop.tokens):
            row = share[place]
            best = row.topk(3)
            assert [guess.token for guess in token.guesses] == best.indices.tolist()
            assert [guess.probability for guess in token.guesses] == pytest.approx(
                best.values.tolist(), rel=1e-3
            )
            assert token.guesses[0].text == f"<{token.guesses[0].token}>"
            after = ids[place + 1] if place + 1 < len(ids) else None
            expected = None if after is None else pytest.approx(float(row[after]), rel=1e-3)
            assert token.next_probability == expected
            assert token.entropy == pytest.approx(float(-(row * row.log()).sum()), rel=1e-3)
            hidden = state.hidden[0, place]
            assert token.rms == pytest.approx(float(hidden.square().mean().sqrt()), rel=1e-4)
            assert token.l2_norm == pytest.approx(float(hidden.norm()), rel=1e-4)
            assert (token.cosine is None) == (loop.loop == 1)
            assert (token.gate is None) == (state.gate_logit() is None)
    for place, settled in enumerate(record.settled):
        said = [int(share[place].argmax()) for share in shares]
        assert settled == min(k for k in range(1, DEPTH + 1) if len(set(said[k - 1 :])) == 1)


def test_where_what_is_said_settles() -> None:
    assert settled_at([5]) == 1
    assert settled_at([5, 5, 5]) == 1
    assert settled_at([5, 6, 6]) == 2
    assert settled_at([6, 5, 6]) == 3


def test_the_record_reads_back_and_sums_up() -> None:
    record = made("ouro")
    assert decode(LogitLens, json_object(to_json(record))) == record
    rows = record.table()
    assert [row["loop"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["settled"] == 1.0
    assert [row["settled"] for row in rows] == sorted(row["settled"] for row in rows)
    mean = sum(token.rms for token in record.loops[1].tokens) / len(record.token_ids)
    assert math.isclose(rows[1]["RMS"], mean)
    assert rows[0]["cosine"] is None
    assert "10 tokens, 4 loops (trained with 4)" in str(record)


def test_a_patch_shows_in_what_is_said() -> None:
    model = lens_case("own")[2]
    seen = loopscope.lens(model, IDS[:1]).patch(1, None, torch.zeros_like)
    record = logit_lens(seen, str, "own", "", 1)
    assert all(token.rms == 0 for token in record.loops[0].tokens)


def test_one_token_has_no_next_one() -> None:
    seen = loopscope.lens(lens_case("own")[2], IDS[:1, :1])
    record = logit_lens(seen, str, "own", "", 1)
    assert record.table()[0]["next token right"] is None
    assert record.loops[0].tokens[0].next_probability is None
