"""The loop of generation: read logits, draw, look whether a text has ended, and say what came.

`stream` yields one `Step` per token of the batch; `generate_tokens` collects them. Rows whose text has ended leave the
batch: cache, strategy and generators are cut, and the others go on as they would alone.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopscope.generation.drafted_steps import DraftedSteps
from loopscope.generation.drafted_text import rounds
from loopscope.generation.exits import RowRules, distinct
from loopscope.generation.grouped_steps import GroupedSteps, RowGroup
from loopscope.generation.growing_texts import GrowingTexts, NewToken
from loopscope.generation.padding import to_the_right
from loopscope.generation.settings import Settings, check_prompt_ids, check_prompts, check_settings, inference
from loopscope.generation.steps import AbstractSteps
from loopscope.generation.stopping import Reason
from loopscope.generation.ways import AbstractTextWay
from loopscope.guards import device_of
from loopscope.recurrence import AbstractLoopedLM


@dataclass(frozen=True)
class Generated:
    """GrowingTexts that were generated, row by row.

    Attributes:
        tokens: new tokens, without the prompt.
        loops: the loop that each of them was read at.
        texts: their text; empty strings without a tokenizer.
        ended: why each row ended: `length`, `eos` or `stop`.
        guessed: how many of its tokens a draft had before full depth did.
    """

    tokens: tuple[tuple[int, ...], ...]
    loops: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    ended: tuple[Reason, ...]
    guessed: tuple[int, ...] = ()

    @property
    def mean_loops(self) -> float:
        """Mean loops over all new tokens."""
        counts = [count for row in self.loops for count in row]
        return sum(counts) / len(counts)

    @property
    def guessed_share(self) -> float:
        """Share of all new tokens that a draft had guessed: n of n + 1 at best, for n guesses a round."""
        return sum(self.guessed) / sum(map(len, self.tokens))


def generate_tokens(
    model: AbstractLoopedLM,
    input_ids: Int[Tensor, "batch seq"],
    settings: Settings,
    attention_mask: Any = None,
) -> Generated:
    """Generate from token ids, and return everything that `stream` yields, collected.

    Args:
        input_ids: prompts, [batch, seq].
        attention_mask: [batch, seq], 0 at padding, which may be left or right; None where there is none.

    Raises:
        ValueError: bad input, before anything runs.
    """
    rows: list[list[NewToken]] = [[] for _ in range(len(input_ids))]
    for new_tokens in stream(model, input_ids, settings, attention_mask):
        for new in new_tokens:
            rows[new.row].append(new)
    return Generated(
        tokens=tuple(tuple(new.token for new in row) for row in rows),
        loops=tuple(tuple(new.loops for new in row) for row in rows),
        texts=tuple("".join(new.text for new in row) for row in rows),
        ended=tuple(row[-1].ended or "length" for row in rows),
        guessed=tuple(sum(new.guessed for new in row) for row in rows),
    )


def stream(
    model: AbstractLoopedLM, input_ids: Any, settings: Settings, attention_mask: Any = None
) -> Generator[list[NewToken], None, None]:
    """Yield the new tokens of every row that goes on, step by step.

    Args:
        input_ids: prompts, [batch, seq].
        attention_mask: [batch, seq], 0 at padding, which may be left or right; None where there is none.

    Raises:
        ValueError: bad input; on the call, before anything runs.
    """
    check_prompts(model, input_ids)
    ids, pads = to_the_right(input_ids.to(device_of(model)), attention_mask)
    rows = check_settings(settings, model, (ids.shape[1] - pads).tolist())
    check_prompt_ids(model, ids)
    return _stream(model, ids, pads, settings, rows)


def _stream(
    model: AbstractLoopedLM,
    ids: Tensor,
    pads: Tensor,
    settings: Settings,
    settings_by_row: Sequence[Settings],
) -> Generator[list[NewToken], None, None]:
    capacity = ids.shape[1] + max(row.stopping.new_tokens for row in settings_by_row)
    texts = GrowingTexts(
        settings, settings_by_row, [ids[row, pad:].tolist() for row, pad in enumerate(pads.tolist())]
    )
    parts = list(model.modules())
    if settings.draft is not None:
        drafted = settings_by_row[0].way(model).drafted(settings.draft, pads, capacity)
        _read_prompts(drafted, ids, settings, parts)
        yield from rounds(drafted, settings.draft, texts, ids[:, -1], parts)
        return
    steps = make_steps(model, settings, pads, capacity)
    _read_prompts(steps, ids, settings, parts)
    tokens = ids[:, -1]
    while texts.rows:
        with inference(parts):
            read = steps.step(tokens)
            tokens = texts.draw(read.logits)
        new_tokens = texts.add(tokens.tolist(), read.loops.tolist())
        yield new_tokens
        going = [place for place, new in enumerate(new_tokens) if new.ended is None]
        if len(going) < len(new_tokens) and going:
            kept = torch.tensor(going, device=tokens.device)
            steps.select(kept)
            tokens = tokens[kept]
        texts.keep(going)


def _read_prompts(
    steps: AbstractSteps | DraftedSteps, ids: Tensor, settings: Settings, parts: Sequence[nn.Module]
) -> None:
    with inference(parts):
        for piece in in_pieces(ids[:, :-1], settings.prompt_piece):
            steps.prefill(piece)


def make_steps(
    model: AbstractLoopedLM, settings: Settings, pads: Int[Tensor, " rows"], capacity: int
) -> AbstractSteps:
    """Return the way to make steps: over a cache where the model can and the settings say so, else computed anew.

    Rows of different depths, or of what else their way needs alike, run in batches of their own.

    Args:
        capacity: columns of the longest text that may come.
    """
    rows = settings.by_row(len(pads))
    rules = distinct([row.rule for row in rows])
    groups: dict[Any, list[int]] = {}
    ways: dict[Any, AbstractTextWay] = {}
    for index, (row, pad) in enumerate(zip(rows, pads.tolist(), strict=True)):
        way = row.way(model)
        loops = model.loops if row.loops is None else row.loops
        key = (loops, type(way), None if way.ragged else pad, None if way.mixed else rules.index(row.rule))
        groups.setdefault(key, []).append(index)
        ways.setdefault(key, way)
    made = []
    for key, places in groups.items():
        chosen = torch.tensor(places, device=pads.device)
        first = int(pads[chosen].min())
        own = [rows[place].rule for place in places]
        rule = own[0] if len(distinct(own)) == 1 else RowRules(own)
        steps = ways[key].steps(rule, pads[chosen] - first, capacity - first)
        if settings.compile:
            from loopscope.generation.compiled_steps import compiled_where_possible

            steps = compiled_where_possible(steps, model, key[0], rule)
        made.append(RowGroup(chosen, first, steps))
    return made[0].steps if len(made) == 1 and made[0].first == 0 else GroupedSteps(made)


def in_pieces(ids: Int[Tensor, "rows seq"], tokens: int | None) -> Sequence[Int[Tensor, "rows _"]]:
    """Return prompts in pieces of so many columns; whole where nobody says how many."""
    return [ids] if tokens is None or ids.shape[1] == 0 else ids.split(tokens, dim=1)
