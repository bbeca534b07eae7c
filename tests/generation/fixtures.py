"""Small models whose next tokens vary, exit rules without a model behind them, and ragged prompts."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from loopscope.generation.decoder import Generated, generate_tokens
from loopscope.generation.exits import Decision
from loopscope.generation.settings import Settings
from loopscope.generation.stopping import Stopping
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import LoopState, unroll
from tests.model.fixtures import TINY, build

VOCABULARY = TINY["vocabulary"]


def lively(name: str = "plain", **changes: Any) -> LoopedTransformer:
    """A variant in fp64 with every weight moved: gates are open, adapters act, and texts do not repeat one token."""
    torch.manual_seed(0)
    settings = {"initialisation": "published", "sequence": 48, "tied": False} | changes
    model = LoopedTransformer(build(name, **settings)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def ragged() -> tuple[Tensor, Tensor]:
    """Three prompts of 11, 7 and 8 tokens: without padding, padded left, padded right."""
    ids = torch.randint(VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :4], mask[2, 8:] = 0, 0
    return ids, mask


def expect(
    model: LoopedTransformer, made: Generated, loops: int, rule: Any = None, prompts: Any = None
) -> None:
    """Check a greedy text against one unroll over the whole of it, row by row and without padding.

    Every state there is the full-depth one. Each place's exit is the first loop at which the rule fires, and the token
    after it the likeliest at that exit: what generation must have found if nothing it read was an approximation.
    """
    ids, mask = ragged() if prompts is None else prompts
    for row, (tokens, left) in enumerate(zip(made.tokens, made.loops, strict=True)):
        prompt = ids[row] if mask is None else ids[row, mask[row] == 1]
        whole = torch.cat([prompt, torch.tensor(tokens[:-1], dtype=torch.int64)])[None]
        exits = torch.full((len(tokens),), 0)
        likeliest = torch.full((len(tokens),), -1)
        with torch.no_grad():
            for state in unroll(model, whole, loops):
                logits = state.logits()[0, -len(tokens) :]
                if rule is None or state.is_last:
                    leave = torch.full((len(tokens),), state.is_last)
                else:
                    shown = logits if rule.readout else state.hidden[0, -len(tokens) :]
                    leave = rule.score(shown) > rule.bar
                now = leave & (exits == 0)
                exits[now], likeliest[now] = state.loop, logits.argmax(dim=-1)[now]
        assert likeliest.tolist() == list(tokens)
        assert exits.tolist() == list(left)


def run(model: LoopedTransformer, new_tokens: int = 16, prompts: Any = None, **settings: Any) -> Generated:
    """Generate for the ragged prompts, or those given."""
    ids, mask = ragged() if prompts is None else prompts
    return generate_tokens(model, ids, Settings(Stopping(new_tokens), **settings), mask)


class Erratic:
    """A rule that scatters exits over loops, by what a state holds and nothing else.

    Args:
        readout: whether it reads logits, or the hidden state alone.
        bar: from -1 (everything leaves) to 1 (nothing does).
    """

    def __init__(self, readout: bool = False, bar: float = 0.3) -> None:
        self.readout, self.bar = readout, bar

    def score(self, shown: Tensor) -> Tensor:
        """From -1 to 1."""
        return (1000 * shown.sum(dim=-1)).sin()

    def decide(self, state: LoopState, before: Mapping[str, Tensor]) -> Decision:
        shown = state.logits() if self.readout else state.hidden
        score = self.score(shown[:, -1])
        seen = before.get("loops", torch.zeros(len(score))) + 1
        assert seen.tolist() == [state.loop] * len(score), "what is kept is cut with the rows"
        return Decision(score > self.bar, {"loops": seen}, shown[:, -1] if self.readout else None)
