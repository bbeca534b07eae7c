"""Known texts, token by token, as generation would read them: what exits per token cost in quality.

The model is fed the text's own tokens, so that one early exit changes what later tokens see, and not which tokens
they are. Two figures come out: the loss of the labels, and how often the likeliest token is the one that full depth
would have taken (agreement), which needs no labels that a model can be right about.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.generation.decode import make_steps
from loopscope.generation.settings import Settings, check_prompts, check_settings, check_vocabulary, reading
from loopscope.guards import device_of
from loopscope.numerics import wide
from loopscope.recurrence import AbstractLoopedLM


@dataclass(frozen=True)
class Forced:
    """What was read of known texts, after a prompt.

    Attributes:
        losses: nats per token of each label.
        choices: the likeliest token at every place.
        loops: the loop every place was read at.
    """

    losses: Float[Tensor, "batch seq"]
    choices: Int[Tensor, "batch seq"]
    loops: Int[Tensor, "batch seq"]

    @property
    def loss(self) -> float:
        """Mean, in nats per token."""
        return float(self.losses.double().mean())

    @property
    def mean_loops(self) -> float:
        """Over all places."""
        return float(self.loops.double().mean())

    def agreement(self, other: "Forced") -> float:
        """Share of places where both would take the same token."""
        return float((self.choices == other.choices).double().mean())


def force(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    labels: Any,
    settings: Settings,
    prompt: int = 1,
) -> Forced:
    """Read windows of text token by token.

    Args:
        labels: what comes after each token of `input_ids`, of its shape.
        settings: as for generation; how tokens are drawn and when texts end does not matter here.
        prompt: tokens at the start that are read at full depth and not counted, from 1 up.

    Raises:
        ValueError: bad input, before anything runs.
    """
    check_prompts(model, input_ids)
    seq = input_ids.shape[1]
    if labels.shape != input_ids.shape:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}; they must be as input_ids, {tuple(input_ids.shape)}"
        )
    if not 1 <= prompt <= seq:
        raise ValueError(f"prompt is {prompt}; it must be from 1 to the {seq} tokens there are")
    check_settings(settings, model, seq, 1)
    check_vocabulary(model, input_ids)
    ids, goal = input_ids.to(device_of(model)), labels.to(device_of(model))
    pads = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
    steps, parts = make_steps(model, settings, pads, seq), list(model.modules())
    found: list[Sequence[Tensor]] = []
    with reading(parts):
        steps.prefill(ids[:, : prompt - 1])
        for place in range(prompt - 1, seq):
            read = steps.step(ids[:, place])
            losses = F.cross_entropy(wide(read.logits), goal[:, place], reduction="none")
            found.append((losses.cpu(), read.logits.argmax(dim=-1).cpu(), read.loops))
    losses, choices, loops = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
    return Forced(losses, choices, loops)
