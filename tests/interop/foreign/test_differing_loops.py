"""A module whose loops differ, and that nothing says how to run deeper: what is repeated past them is told."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import loopscope
from tests.interop.fixtures import IDS, LABELS, Plain, build


class Tabled(Plain):
    """Adds another row of a table in every loop; it has rows to spare."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(8, self.tokens.embedding_dim))

    def forward(self, ids: Tensor, loops: int | None = None) -> Any:
        x = self.tokens(ids)
        for loop in range(loops or self.config.loops):
            x = self.stack(x + self.rows[loop])
        return self.lm_head(self.norm(x))


def _remarks(model: Any) -> list[str]:
    return [note for note in model.remarks if "do not all do the same" in note]


def test_loops_that_differ_are_remarked_where_nothing_runs_them_deeper() -> None:
    module = build(Tabled)
    model = loopscope.wrap(module, "layers")
    (said,) = _remarks(model)
    assert f"Past loop {model.loops} the last one is repeated" in said
    assert said in loopscope.audit(model, IDS, LABELS, rounding=None).notes
    set_deeper = loopscope.wrap(module, "layers", set_loops="loops")
    assert _remarks(set_deeper) == []


@pytest.mark.parametrize("kind", [Plain])
def test_loops_that_are_one_map_are_not(kind: type[Plain]) -> None:
    assert _remarks(loopscope.wrap(build(kind), "layers")) == []
