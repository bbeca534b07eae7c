"""Audits of padded batches: every number is the one of the texts alone."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import loopscope
from loopscope.audit.audit_report import judge
from loopscope.generation.padding import pad
from loopscope.recurrence import AbstractLoopedLM
from loopscope.results import AuditReport
from tests.audit.fixtures import make
from tests.interop.fixtures import Injected, Remembering, build

WIDTH = 12
TEXT = torch.tensor([[5, 3, 8, 1, 30, 2, 7, 7, 21]])
LABELS = TEXT.roll(-1, 1)


def wrapped(kind: Any, **settings: Any) -> AbstractLoopedLM:
    return loopscope.wrap(build(kind), "layers", **settings)


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from numbers(entry, f"{path}.{key}")
    elif isinstance(value, tuple):
        for index, entry in enumerate(value):
            yield from numbers(entry, f"{path}[{index}]")
    else:
        yield path, value


def same(one: AuditReport, other: AuditReport) -> None:
    """Every number, word and sentence of two reports, but for notes and places."""
    found, expected = (
        {path: value for path, value in numbers(report) if not path.startswith((".notes", ".tokens"))}
        for report in (one, other)
    )
    assert found.keys() == expected.keys()
    for path, value in found.items():
        due = expected[path]
        assert value == (pytest.approx(due, rel=2e-3, abs=1e-5) if isinstance(due, float) else due), path


def batch(side: str, fill: int = 33) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pad = WIDTH - TEXT.shape[1]
    sides = {"left": (pad, 0), "right": (0, pad)}[side]
    mask = torch.nn.functional.pad(torch.ones_like(TEXT), sides)
    return *(torch.nn.functional.pad(one, sides, value=fill) for one in (TEXT, LABELS)), mask


SMALL = {"loops": 2, "layers": 1, "dim": 16, "heads": 2}


@pytest.mark.parametrize(
    ("model", "side"),
    [
        (lambda: make(**SMALL, exit_gate=True), "left"),
        (lambda: make(**SMALL, positions="rotary", readout="raw", attention={"window": 3}), "right"),
        (lambda: wrapped(Injected, set_loops="loops"), "left"),
    ],
    ids=["learned positions", "rotary", "followed"],
)
def test_the_report_of_a_padded_text_is_that_of_the_text(
    model: Callable[[], AbstractLoopedLM], side: str
) -> None:
    looped = model()
    ids, labels, mask = batch(side)
    padded = loopscope.audit(looped, ids, labels, "dense+norm_penalty=0.01", attention_mask=mask)
    alone = loopscope.audit(looped, TEXT, LABELS, "dense+norm_penalty=0.01")
    same(padded, alone)
    assert padded.notes[0] == "Padding was left out: 9 of 12 places hold tokens of texts."
    offset = 3 if side == "left" else 0
    for one, other in zip(padded.tokens, alone.tokens, strict=True):
        assert [row[:3] for row in one.largest] == [(r, c + offset, t) for r, c, t, _ in other.largest]
        assert one.mean == pytest.approx(other.mean)


@pytest.mark.filterwarnings("ignore:what follows loop 2 depends on loop 1")
def test_rows_of_several_lengths_have_their_weighted_mean() -> None:
    model = wrapped(Remembering)  # with a history of its own per text
    ids, mask = pad([[5, 3, 8, 1], [9, 9, 2], [4, 4, 1, 6, 2]], "right")
    labels = ids.roll(-1, 1).masked_fill(mask == 0, -100)
    sizes = mask.sum(dim=1).tolist()
    whole = judge(model, ids, labels, attention_mask=mask == 1).loops
    own = [
        judge(model, ids[row : row + 1, :n], labels[row : row + 1, :n]).loops for row, n in enumerate(sizes)
    ]
    for loop, of_rows in zip(whole, zip(*own, strict=True), strict=True):
        for name in ("carry", "direct"):
            mean = sum(n * getattr(row, name) for n, row in zip(sizes, of_rows, strict=True)) / sum(sizes)
            assert getattr(loop, name) == pytest.approx(mean, rel=1e-3, abs=1e-5)


def test_labels_of_padding_do_not_count() -> None:
    model = make(**SMALL)
    ids, _, mask = batch("right")
    cut = loopscope.audit(model, ids[:, :-1], ids[:, 1:], attention_mask=mask[:, :-1])
    alone = loopscope.audit(model, TEXT, torch.cat([TEXT[:, 1:], torch.tensor([[-100]])], dim=1))
    assert cut.cross_entropy == pytest.approx(alone.cross_entropy, rel=1e-5)
    assert "1 of the labels behind a text's last token" in cut.notes[1]
    # a label that is the padding's id, where padding has labels of -100: it is meant
    last = TEXT.roll(-1, 1)
    last[0, -1] = 33
    meant = torch.nn.functional.pad(last, (0, 3), value=-100)
    whole = loopscope.audit(model, ids, meant, attention_mask=mask)
    assert whole.cross_entropy == pytest.approx(loopscope.audit(model, TEXT, last).cross_entropy, rel=1e-5)


def test_masks_that_do_not_fit_are_refused_before_anything_runs() -> None:
    ids, labels, mask = batch("right")
    with pytest.raises(ValueError, match="padding between tokens"):
        loopscope.audit(make(), ids, labels, attention_mask=mask.roll(5, 1))
    with pytest.raises(ValueError, match="no token to measure"):
        loopscope.audit(make(), ids, labels.masked_fill(mask == 1, -100), attention_mask=mask)
