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

from loopscope.generation.decoder import in_pieces, make_steps
from loopscope.generation.settings import Settings, check_prompt_ids, check_prompts, check_settings, inference
from loopscope.guards import device_of
from loopscope.numerics import wide
from loopscope.recurrence import AbstractLoopedLM


@dataclass(frozen=True)
class ForcedReading:
    """What was read of known texts, token by token, after a prompt.

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
        """Mean loss, in nats per token."""
        return float(self.losses.double().mean())

    @property
    def mean_loops(self) -> float:
        """Mean loops over all places."""
        return float(self.loops.double().mean())

    def agreement(self, other: "ForcedReading") -> float:
        """Return the share of places where both would take the same token."""
        return float((self.choices == other.choices).double().mean())


def force(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    labels: Any,
    settings: Settings,
    prompt: int = 1,
) -> ForcedReading:
    """Read windows of text token by token, as generation would, and return losses, choices and loops.

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
    check_settings(settings, model, [seq] * len(input_ids), 1)
    check_prompt_ids(model, input_ids)
    ids, goal = input_ids.to(device_of(model)), labels.to(device_of(model))
    pads = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
    steps, parts = make_steps(model, settings, pads, seq), list(model.modules())
    readings: list[Sequence[Tensor]] = []
    with inference(parts):
        for piece in in_pieces(ids[:, : prompt - 1], settings.prompt_piece):
            steps.prefill(piece)
        for column in range(prompt - 1, seq):
            read = steps.step(ids[:, column])
            losses = F.cross_entropy(wide(read.logits), goal[:, column], reduction="none")
            readings.append((losses.cpu(), read.logits.argmax(dim=-1).cpu(), read.loops))
    losses, choices, loops = (torch.stack(parts, dim=1) for parts in zip(*readings, strict=True))
    return ForcedReading(losses, choices, loops)
