"""Known texts read token by token: against one unroll over the whole of them."""

import pytest
import torch
import torch.nn.functional as F

from loopscope.generation.forced_reading import force
from loopscope.generation.settings import Settings
from loopscope.generation.stopping import Stopping
from loopscope.recurrence import unroll
from tests.generation.fixtures import VOCABULARY, Erratic, lively

TOKENS = torch.randint(VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(3))
IDS, LABELS = TOKENS[:, :-1], TOKENS[:, 1:]
FULL = Settings(Stopping(1))


def test_full_depth_gives_the_losses_of_the_whole_text() -> None:
    model = lively("huginn")
    found = force(model, IDS, LABELS, FULL, prompt=4)
    with torch.no_grad():
        *_, last = unroll(model, IDS)
        logits = last.logits()[:, 3:]
    expected = F.cross_entropy(logits.flatten(0, 1), LABELS[:, 3:].flatten(), reduction="none").view(2, 8)
    assert torch.allclose(found.losses, expected, atol=1e-10)
    assert torch.equal(found.choices, logits.argmax(-1))
    assert found.mean_loops == 3
    assert found.agreement(found) == 1


def test_exits_give_the_losses_of_the_exits() -> None:
    model, rule = lively("prelude and coda"), Erratic()
    found = force(model, IDS, LABELS, Settings(Stopping(1), rule=rule))
    with torch.no_grad():
        states = list(unroll(model, IDS))
        leave = torch.stack([rule.score(state.hidden) > rule.bar for state in states])
        leave[-1] = True
        exits = leave.int().argmax(0)
        losses = torch.stack([F.cross_entropy(s.logits().mT, LABELS, reduction="none") for s in states])
    assert torch.equal(found.loops, exits + 1)
    assert torch.allclose(found.losses, losses.gather(0, exits[None])[0], atol=1e-10)
    assert 1 < found.mean_loops < 3


def test_approximations_are_close_to_full_depth_and_not_equal_to_it() -> None:
    model = lively()
    full = force(model, IDS, LABELS, FULL)
    for missing in ("fill", "reuse"):
        found = force(model, IDS, LABELS, Settings(Stopping(1), rule=Erratic(), missing=missing))
        assert not torch.equal(found.losses, full.losses)
        assert 0 <= found.agreement(full) < 1


@pytest.mark.parametrize("prompt", [0, 12])
def test_a_prompt_of_nothing_or_of_everything_is_refused(prompt: int) -> None:
    with pytest.raises(ValueError, match=rf"prompt is {prompt}; it must be from 1 to the 11 tokens"):
        force(lively(), IDS, LABELS, FULL, prompt)


def test_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels have shape \(2, 10\)"):
        force(lively(), IDS, LABELS[:, 1:], FULL)
