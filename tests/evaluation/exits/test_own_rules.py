"""A rule of a user's own that says or gives something wrong: told by name, on every way that a rule is asked."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from loopscope.evaluation.exits.early_exits import early_exit
from loopscope.evaluation.exits.record import record_exits
from loopscope.evaluation.exits.rules import AbstractExitRule, Look, build_rule
from loopscope.evaluation.exits.rules.logit_rule import AbstractLogitRule
from loopscope.jobs.generate import generate
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import unroll

HERE = "tests.evaluation.exits.test_own_rules"
IDS = torch.randint(50, (3, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> LoopedTransformer:
    torch.manual_seed(0)
    return LoopedTransformer(
        ModelConfig(dim=16, heads=2, layers=1, loops=3, vocabulary=50, sequence=16)
    ).eval()


class Own(AbstractExitRule):
    needs = ("hidden",)
    leaves = "below"
    flops = 0.0

    def score(self, look: Look, before: Any) -> Any:
        return look.hidden.mean(dim=-1), {}


class Under(Own):
    leaves = "under"
    needs = ("hidden",)
    flops = 0.0


class OneWord(Own):
    needs = "hidden"
    leaves = "below"
    flops = 0.0


class Misspelt(Own):
    needs = ("logit",)
    leaves = "below"
    flops = 0.0


class Priceless(Own):
    needs = ("hidden",)
    leaves = "below"
    flops = None


class Asks(Own):
    needs = ("hidden",)
    leaves = "below"
    flops = 0.0

    def __init__(self, entries: int) -> None:
        self.entries = entries


class ByLogits(AbstractLogitRule):
    needs = ("hidden",)
    leaves = "below"
    flops = 0.0

    def score_logits(self, logits: Any, before: Any) -> Any:
        return logits[:, 0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Under", "declares leaves='under'; allowed: 'above' or 'below' (docs/extending.md)"),
        (
            "Misspelt",
            "declares needs=('logit',); allowed: a tuple of 'logits', 'features', 'hidden', 'gate'",
        ),
        ("OneWord", "declares needs='hidden'; allowed: a tuple of 'logits'"),
        ("Priceless", "declares flops=None; allowed: a number"),
        ("Asks", "is made by its class without arguments, which its constructor does not allow: missing"),
        ("ByLogits", "scores logits and declares needs=('hidden',); allowed: ('logits',)"),
    ],
)
def test_what_a_rule_declares_is_checked_by_name(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^exit rule {HERE}:{name} ") as caught:
        build_rule(f"{HERE}:{name}")
    assert message in str(caught.value)


def test_so_is_a_rule_made_in_python(model: LoopedTransformer) -> None:
    with pytest.raises(ValueError, match="declares leaves='under'"):
        early_exit(model, IDS, Under(), 0.5)
    with pytest.raises(ValueError, match="declares leaves='under'"):
        record_exits(model, [(IDS, IDS)], [Under()], 1.0)


class Gives(AbstractExitRule):
    """Gives what it was made with."""

    needs = ("logits",)
    leaves = "below"
    flops = 0.0

    def __init__(self, give: Any = None) -> None:
        self.give = give

    def score(self, look: Look, before: Any) -> Any:
        return self.give(look)


class GivesLogits(AbstractLogitRule):
    needs = ("logits",)
    leaves = "below"
    flops = 0.0

    def score_logits(self, logits: Any, before: Any) -> Any:
        return logits.mean()


def by_token(model: LoopedTransformer, rule: AbstractExitRule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopscope.jobs.generate.build_rule", lambda name: rule)
    generate(model, IDS, 2, exit_rule="mine", threshold=0.5)


def every_way(model: LoopedTransformer, rule: AbstractExitRule, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each way of asking a rule says."""
    found = []
    for ask in (
        lambda: record_exits(model, [(IDS, IDS)], [rule], 1.0),
        lambda: early_exit(model, IDS, rule, 0.5),
        lambda: by_token(model, rule, monkeypatch),
    ):
        with pytest.raises(ValueError, match=f"^exit rule '?{HERE}:") as caught:
            ask()
        found.append(str(caught.value))
    return found


SCORES = "as its scores at loop 1; expected one number per token, [batch seq], which is [3, 8] here"


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda look: (look.logits.mean(dim=(1, 2)), {}), f"gave a tensor of shape [3] {SCORES}"),
        (lambda look: (look.logits, {}), f"gave a tensor of shape [3, 8, 50] {SCORES}"),
        (lambda look: (0.5, {}), f"gave a float {SCORES}"),
        (lambda look: look.logits[..., 0], "gave a tensor of shape [3, 8] at loop 1; expected two things"),
        (lambda look: (look.logits[..., 0], None), "gave a tuple of 2 at loop 1; expected two things"),
        (
            lambda look: (look.logits[..., 0], {"seen": torch.tensor(1.0)}),
            "keeps a tensor of shape [] as 'seen' at loop 1; expected a tensor with the batch first, [3 …]",
        ),
        (
            lambda look: (look.logits[..., 0] * math.nan, {}),
            "at loop 1, where the model's states and logits are: the rule's own computation makes them. Where it has "
            "nothing to say, give inf, at which nobody leaves",
        ),
        (
            lambda look: (look.hidden[..., 0], {}),
            "reads look.hidden, and needs=('logits',) of its class leaves out 'hidden': add it there",
        ),
        (
            lambda look: (look.gate, {}),
            "reads look.gate, and needs=('logits',) of its class leaves out 'gate'",
        ),
        (lambda look: (look.start[..., 0], {}), "reads look.start, and needs=('logits',) of its class"),
    ],
)
def test_what_a_rule_gives(
    model: LoopedTransformer, monkeypatch: pytest.MonkeyPatch, give: Any, message: str
) -> None:
    record, exits, tokens = every_way(model, Gives(give), monkeypatch)
    assert message in record
    assert message in exits
    assert message in tokens.replace("[3, 1", "[3, 8")  # the newest token of every row


def test_what_a_rule_of_logits_gives(model: LoopedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    for said in every_way(model, GivesLogits(), monkeypatch):
        assert "gave shape [] as the scores of logits [" in said
        assert "expected one number per token" in said


def test_a_rule_that_declares_logits_may_read_features_and_start_with_hidden(
    model: LoopedTransformer,
) -> None:
    state = next(unroll(model, IDS))
    whole = Look(state)
    shown = whole.declared("mine", ("logits", "hidden"))
    assert shown.logits is whole.logits  # computed once
    assert shown.features is whole.features
    assert shown.start.shape == shown.hidden.shape
    assert shown.shape == IDS.shape


def test_numbers_that_the_model_does_not_have_are_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    broken = LoopedTransformer(
        ModelConfig(dim=16, heads=2, layers=1, loops=3, vocabulary=50, sequence=16)
    ).eval()
    with torch.no_grad():
        broken.token_embedding.weight[int(IDS[0, 0])] = math.inf
    for said in every_way(broken, Gives(lambda look: (look.logits.mean(dim=-1), {})), monkeypatch):
        assert "the model's states or logits are not finite there" in said


def test_infinities_of_both_signs_have_no_mean(model: LoopedTransformer) -> None:
    def both(look: Look) -> Any:
        scores = torch.full(look.shape, math.inf)
        scores[:, 0] = -math.inf
        return scores, {}

    with pytest.raises(
        ValueError, match="gives inf and -inf to tokens of one sequence at loop 1.*give inf alone"
    ):
        early_exit(model, IDS, Gives(both), 0.5)


@pytest.mark.parametrize(("side", "nothing"), [("below", math.inf), ("above", -math.inf)])
def test_nobody_leaves_where_a_rule_has_nothing_to_say(
    model: LoopedTransformer, side: str, nothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the docs say of loop 1, at the loosest threshold that there is."""

    def later(look: Look) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.full(look.shape, nothing if look.loop == 1 else 0.0), {}

    monkeypatch.setattr(Gives, "leaves", side)
    rule = Gives(later)
    assert early_exit(model, IDS, rule, 0.0).loops.tolist() == [2, 2, 2]
