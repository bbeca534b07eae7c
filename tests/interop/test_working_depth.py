"""A model at another depth than its trained one: through a stranger's forward where there is one, or not at all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import loopscope
from loopscope.interop.working_depth import set_depth
from loopscope.recurrence import unroll
from loopscope.results import audits_from_json
from loopscope.results.layout import AUDIT, visible
from tests.interop.huggingface.test_pretrained import hrm

REFUSED = "does not run at that depth"


class Stepped(nn.Module):
    """Adds its block's output so many times, `most` at most."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.tokens, self.block, self.lm_head = nn.Embedding(30, 8), nn.Linear(8, 8), nn.Linear(8, 30)

    def forward(self, ids: Tensor, steps: int = 2) -> Tensor:
        if steps > self.most:
            raise IndexError("no embedding of that loop")
        hidden = self.tokens(ids)
        for _ in range(steps):
            hidden = self.block(hidden)
        logits: Tensor = self.lm_head(hidden)
        return logits


def test_what_is_audited_has_the_depth_asked_for() -> None:
    torch.manual_seed(0)
    theirs = Stepped(99)
    model = set_depth(loopscope.wrap(theirs, "block", set_loops="steps"), 5)
    ids = torch.arange(8)[None]
    with torch.no_grad():
        *_, last = unroll(model, ids)
        assert last.loop == 5
        assert torch.allclose(last.logits(), theirs(ids, 5), atol=1e-5)
    assert len(loopscope.audit(model, ids[:, :-1], ids[:, 1:]).loops) == 5


def test_a_depth_that_a_forward_does_not_run_at_is_refused() -> None:
    model = loopscope.wrap(Stepped(5), "block", set_loops="steps")
    with pytest.raises(ValueError, match=f"loops is 6, .* {REFUSED} .IndexError: no embedding of that loop"):
        set_depth(model, 6)
    assert model.loops == 2
    with pytest.raises(
        ValueError, match="nothing says how the forward of Stepped is set to another depth than 2"
    ):
        set_depth(loopscope.wrap(Stepped(5), "block"), 3)


def test_a_folder_is_audited_at_another_depth_and_keeps_nothing_of_it(
    tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    folder, kept = tmp_path / "hrm", tmp_path / "kept"
    hrm().eval().save_pretrained(folder)
    before = visible(folder)
    words = ("--sequences", 1, "--length", 8)
    assert call("audit", folder, *words, "--loops", 2, "--keep-in", kept) == 0
    assert visible(folder) == before
    (audited,) = audits_from_json((kept / AUDIT).read_text())
    assert audited.name == "hrm at 2 loops"
    assert len(audited.report.loops) == 2
    for wrong in (0, 10**6):
        assert call("audit", folder, *words, "--loops", wrong) == 2
        assert "loops" in capsys.readouterr().err
