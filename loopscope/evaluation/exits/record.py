"""What every exit is worth and what every rule sees there, recorded once: one unroll, then any threshold.

Every token goes through all loops. Logits are never kept: a chunk of tokens is read, scored by every rule and
dropped. Memory: tokens × loops × (rules + 1) numbers of fp32 for the record, on the CPU; while a batch runs, its
states, and one chunk of logits (two where a rule compares: the loop before is then read again).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from loopscope.evaluation.exits.rules.base import AbstractBound, AbstractExitRule, AbstractRule, Kept
from loopscope.evaluation.exits.rules.logit_rule import AbstractLogitRule
from loopscope.evaluation.exits.rules.look import Look
from loopscope.evaluation.exits.scores import check_numbers, score_tokens
from loopscope.evaluation.texts import Texts, UncheckedBatch, texts_of
from loopscope.guards import evaluating
from loopscope.numerics import wide
from loopscope.objectives.token_loss import CHUNK_ELEMENTS, IGNORE_INDEX
from loopscope.ops.narrow_products import products_of
from loopscope.recurrence import AbstractLoopedLM, check_loops, unroll
from loopscope.results.evaluations import Unit

TokenBatches = Iterable[UncheckedBatch]


@dataclass(frozen=True)
class ExitRecord:
    """Losses of every exit and scores of every rule, over the windows of a text.

    Attributes:
        losses: nats of every token, 0 where its label is ignored.
        scores: by rule; loops before the last, where alone a rule has a say.
        counted: whether a token's label counts.
        tokens: whether there is a token, and no padding; None: everywhere.
    """

    losses: Float[Tensor, "loops windows seq"]
    scores: Mapping[str, Float[Tensor, "earlier windows seq"]]
    counted: Bool[Tensor, "windows seq"]
    bytes_per_token: float
    tokens: Bool[Tensor, "windows seq"] | None = None

    def __len__(self) -> int:
        return self.losses.shape[1]

    def part(self, windows: Int[Tensor, " kept"]) -> "ExitRecord":
        """Return the record of some of its windows, by index."""
        scores = {name: values[:, windows] for name, values in self.scores.items()}
        tokens = None if self.tokens is None else self.tokens[windows]
        return replace(
            self, losses=self.losses[:, windows], scores=scores, counted=self.counted[windows], tokens=tokens
        )

    def units(self, rule: AbstractRule, unit: Unit) -> "Units":
        """Return what a rule decides on: sequences, by their mean score, or tokens, each by its own.

        Raises:
            ValueError: the rule was not recorded.
        """
        losses, counts = self.losses, self.counted
        if unit == "sequence":
            summed, number = losses.double().sum(dim=2), counts.sum(dim=1)
        else:
            summed, number = self._each(losses).double(), self._each(counts[None])[0].long()
        if isinstance(rule, AbstractBound):
            per_token = summed / number.clamp(min=1)
            return Units(summed, number, rule.scores(per_token)[:-1], self.bytes_per_token)
        if rule.name not in self.scores:
            raise ValueError(f"rule {rule.name!r} was not recorded; recorded: {', '.join(self.scores)}")
        scores = self.scores[rule.name]
        own = self._means(scores.double()) if unit == "sequence" else self._each(scores).double()
        return Units(summed, number, own, self.bytes_per_token)

    def _each(self, values: Tensor) -> Tensor:
        """Values [loops tokens] of every token, padding left out."""
        return values.flatten(1) if self.tokens is None else values[:, self.tokens]

    def _means(self, values: Tensor) -> Tensor:
        """Means [loops windows] over every window's tokens, padding left out."""
        if self.tokens is None:
            return values.mean(dim=2)
        return values.where(self.tokens, 0.0).sum(dim=2) / self.tokens.sum(dim=1)


@dataclass(frozen=True)
class Units:
    """Sequences or tokens that leave one by one: their losses at every loop, and a rule's scores there."""

    losses: Float[Tensor, "loops units"]  # summed over the unit's counted tokens
    counts: Int[Tensor, " units"]
    scores: Float[Tensor, "earlier units"]
    bytes_per_token: float

    @property
    def depth(self) -> int:
        """Number of loops, K."""
        return self.losses.shape[0]


@torch.no_grad()
def record_exits(
    model: AbstractLoopedLM,
    batches: TokenBatches,
    rules: Sequence[AbstractRule],
    bytes_per_token: float,
    loops: int | None = None,
) -> ExitRecord:
    """Unroll every batch once, in evaluation mode, and record all exits as the trained reading has them.

    Args:
        batches: input ids, labels and, where texts are padded, an attention mask (1 at tokens), each [batch seq]: each
            window then has what its text has alone.
        rules: bounds among them need no recording, and are passed over.
        bytes_per_token: UTF-8 bytes of the text over its tokens.
        loops: depth; None: the trained one.

    Raises:
        ValueError: no window, no label that counts, a rule that the model cannot run, losses that are not finite,
            scores that are not numbers.
    """
    depth = check_loops(model.loops if loops is None else loops)
    running = [rule for rule in rules if isinstance(rule, AbstractExitRule)]
    parts: list[ExitRecord] = []
    with evaluating(model), products_of(model):
        for batch in batches:
            found: list[tuple[Texts, ExitRecord]] = []
            for texts in texts_of(batch):
                if not parts and not found:
                    for rule in running:
                        rule.check_declared()
                        rule.check_model(model, texts.input_ids)
                own = _record(model, texts.input_ids, texts.labels, running, bytes_per_token, depth)
                found.append((texts, own))
            parts.append(found[0][1] if len(batch) == 2 else _put_together(found))
    if not parts or not any(bool(part.counted.any()) for part in parts):
        raise ValueError("nothing to evaluate exits on: no window, or every label is ignored")
    return ExitRecord(
        losses=torch.cat([part.losses for part in parts], dim=1),
        scores={rule.name: torch.cat([part.scores[rule.name] for part in parts], dim=1) for rule in running},
        counted=torch.cat([part.counted for part in parts]),
        bytes_per_token=bytes_per_token,
        tokens=None
        if all(part.tokens is None for part in parts)
        else torch.cat([torch.ones_like(p.counted) if p.tokens is None else p.tokens for p in parts]),
    )


def _put_together(found: Sequence[tuple[Texts, ExitRecord]]) -> ExitRecord:
    """One padded batch's record out of those of its texts of each length."""

    def whole(parts: Sequence[Tensor]) -> Tensor:
        joint = parts[0].new_zeros(len(parts[0]), *found[0][0].places.shape)
        for (texts, _), part in zip(found, parts, strict=True):
            joint[:, texts.places.cpu()] = part.flatten(1)
        return joint

    first = found[0][1]
    return replace(
        first,
        losses=whole([part.losses for _, part in found]),
        scores={name: whole([part.scores[name] for _, part in found]) for name in first.scores},
        counted=whole([part.counted[None] for _, part in found])[0],
        tokens=torch.stack([texts.places for texts, _ in found]).any(dim=0).cpu(),
    )


def _record(
    model: AbstractLoopedLM,
    input_ids: Tensor,
    labels: Tensor,
    rules: Sequence[AbstractExitRule],
    bytes_per_token: float,
    depth: int,
) -> ExitRecord:
    logit_rules = [rule for rule in rules if isinstance(rule, AbstractLogitRule)]
    others = [rule for rule in rules if not isinstance(rule, AbstractLogitRule)]
    losses: list[Tensor] = []
    scores: dict[str, list[Tensor]] = {rule.name: [] for rule in rules}
    kept: dict[str, Kept] = {rule.name: {} for rule in others}
    before: Tensor | None = None
    for state in unroll(model, input_ids, depth):
        look = Look(state)
        asked = [] if state.is_last else logit_rules
        loss, new_scores = _read(model, look.features, before, labels, asked)
        losses.append(loss.float().cpu())
        if not state.is_last:
            for rule in others:
                new_scores[rule.name], kept[rule.name] = score_tokens(rule, look, kept[rule.name])
            for rule in rules:
                values = new_scores[rule.name]
                check_numbers(rule, look, values)
                scores[rule.name].append(values.float().cpu())
        if not bool(loss.isfinite().all()):
            raise ValueError(
                f"the loss of loop {state.loop} is not finite on this text, so exits cannot be compared: the model has "
                "diverged, or its weights are damaged. Evaluate an earlier checkpoint"
            )
        before = look.features if any(rule.compares for rule in logit_rules) else None
    nothing = torch.zeros(0, *labels.shape)
    return ExitRecord(
        losses=torch.stack(losses),
        scores={name: torch.stack(values) if values else nothing for name, values in scores.items()},
        counted=(labels != IGNORE_INDEX).cpu(),
        bytes_per_token=bytes_per_token,
    )


def _read(
    model: AbstractLoopedLM,
    features: Float[Tensor, "batch seq features"],
    before: Float[Tensor, "batch seq features"] | None,
    labels: Int[Tensor, "batch seq"],
    rules: Sequence[AbstractLogitRule],
) -> tuple[Float[Tensor, "batch seq"], dict[str, Float[Tensor, "batch seq"]]]:
    """Loss of every token and every rule's score, a chunk of tokens at a time."""
    flat, targets = features.flatten(0, 1), labels.flatten()
    earlier = None if before is None else before.flatten(0, 1)
    size = max(1, CHUNK_ELEMENTS // model.head(flat[:1]).shape[-1])
    losses: list[Tensor] = []
    scores: dict[str, list[Tensor]] = {rule.name: [] for rule in rules}
    for start in range(0, len(targets), size):
        chunk = slice(start, start + size)
        logits = model.head(flat[chunk])
        then = None if earlier is None else model.head(earlier[chunk])
        losses.append(
            F.cross_entropy(wide(logits), targets[chunk], ignore_index=IGNORE_INDEX, reduction="none")
        )
        for rule in rules:
            scores[rule.name].append(rule.scored(logits, then if rule.compares else None))
    return torch.cat(losses).view_as(labels), {
        name: torch.cat(values).view_as(labels) for name, values in scores.items()
    }
