"""How likely the ends of texts are, at several depths from one unroll.

Texts of one length run together, so there is no padding, and a text gets what it gets alone. Texts that differ in their
last token alone (the answers A, B, C, D to one question) run once. Memory: one hidden state, one readout, and one chunk
of logits at a time, whatever the number of depths.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loopscope.evaluation.depth.readings import states_at_depths
from loopscope.guards import device_of, evaluating
from loopscope.numerics import wide
from loopscope.objectives.labels import check_range
from loopscope.objectives.token_loss import CHUNK_ELEMENTS, Head
from loopscope.ops.narrow_products import products_of
from loopscope.recurrence import AbstractLoopedLM, vocabulary_size


@dataclass(frozen=True)
class ScoredText:
    """A text whose end is scored.

    Attributes:
        tokens: its ids, at least one more than are scored.
        scored: how many at its end are.
    """

    tokens: tuple[int, ...]
    scored: int


class TextScore(NamedTuple):
    """How likely the end of a text is, as lm-evaluation-harness wants it."""

    log_likelihood: float  # in nats
    greedy: bool  # whether every token of it is the likeliest


@dataclass(frozen=True)
class _Batch:
    """Inputs of one length, and which of their exits are read for which texts."""

    input_ids: Int[Tensor, "rows length"]
    row: Int[Tensor, " places"]  # of each place that is read
    column: Int[Tensor, " places"]
    place: Int[Tensor, " targets"]  # of each scored token, where in `row` and `column` it is predicted
    target: Int[Tensor, " targets"]
    texts: list[int]  # numbers of the texts, in the order of `target`
    counts: list[int]  # their scored tokens


@torch.no_grad()
def score_texts(
    model: AbstractLoopedLM,
    texts: Sequence[ScoredText],
    depths: Sequence[int],
    batch: int = 16,
    apart: bool = False,
    progress: Callable[[int], object] | None = None,
) -> dict[int, list[TextScore]]:
    """Return, by depth, the score of every text.

    Args:
        depths: numbers of loops; each is read as the last loop of a run of so many.
        batch: inputs at a time.
        apart: run an unroll of its own for every depth.
        progress: called with the number of texts that are done, batch by batch.

    Raises:
        ValueError: ids that the model does not have.
    """
    found: dict[int, list[TextScore | None]] = {depth: [None] * len(texts) for depth in depths}
    device, vocabulary = device_of(model), None
    with evaluating(model), products_of(model):
        for part in _batches(texts, batch):
            ids = part.input_ids.to(device)
            vocabulary = vocabulary or vocabulary_size(model, ids)
            check_range(part.input_ids, part.target, vocabulary)
            for state in states_at_depths(model, ids, depths, apart):
                features = state.features()[part.row.to(device), part.column.to(device)]
                scores = _scores(model.head, features, part, vocabulary)
                for number, score in zip(part.texts, scores, strict=True):
                    found[state.loop][number] = score
            if progress is not None:
                progress(len(part.texts))
    return {depth: [score for score in scores if score is not None] for depth, scores in found.items()}


def _batches(texts: Sequence[ScoredText], size: int) -> Iterator[_Batch]:
    """Longest first, so that what does not fit the memory shows at once."""
    of_input: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        of_input[text.tokens[:-1]].append(number)
    by_length: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for tokens in of_input:
        by_length[len(tokens)].append(tokens)
    for length in sorted(by_length, reverse=True):
        inputs = by_length[length]
        for start in range(0, len(inputs), size):
            rows = inputs[start : start + size]
            yield _batch(rows, [of_input[tokens] for tokens in rows], texts)


def _batch(
    inputs: Sequence[tuple[int, ...]], numbers: Sequence[list[int]], texts: Sequence[ScoredText]
) -> _Batch:
    rows: list[int] = []
    columns: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    order, counts = [], []
    for row, (tokens, of_row) in enumerate(zip(inputs, numbers, strict=True)):
        first = len(tokens) - max(texts[number].scored for number in of_row)
        offset = len(rows) - first
        for column in range(first, len(tokens)):
            rows.append(row)
            columns.append(column)
        for number in of_row:
            text = texts[number]
            places += [offset + column for column in range(len(tokens) - text.scored, len(tokens))]
            targets += text.tokens[len(text.tokens) - text.scored :]
            order.append(number)
            counts.append(text.scored)

    def whole(entries: Sequence[int] | Sequence[tuple[int, ...]]) -> Tensor:
        return torch.tensor(entries, dtype=torch.int64)

    return _Batch(whole(inputs), whole(rows), whole(columns), whole(places), whole(targets), order, counts)


def _scores(
    head: Head, features: Float[Tensor, "places dim"], batch: _Batch, vocabulary: int
) -> Iterator[TextScore]:
    """Scores of a batch's texts at one exit: the head runs on the places that are read, a chunk at a time."""
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    logs = torch.zeros(len(batch.target), dtype=wide(features[:0]).dtype)
    greedy = torch.zeros(len(batch.target), dtype=torch.bool)
    for start in range(0, len(features), size):
        logits = wide(head(features[start : start + size]))
        here = (batch.place >= start) & (batch.place < start + size)
        place = (batch.place[here] - start).to(logits.device)
        target = batch.target[here].to(logits.device)
        logs[here] = logits.log_softmax(dim=-1)[place, target].to(logs.device, logs.dtype)
        greedy[here] = (logits.argmax(dim=-1)[place] == target).cpu()
    for ends, hits in zip(logs.split(batch.counts), greedy.split(batch.counts), strict=True):
        yield TextScore(float(ends.sum()), bool(hits.all()))
