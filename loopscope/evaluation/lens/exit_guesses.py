"""What every exit says of a text, loop by loop: the record that a page shows. One loop's logits are alive at a time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from loopscope.evaluation.lens.model_lens import Lens
from loopscope.evaluation.lens.views import LoopView
from loopscope.numerics import wide
from loopscope.results.logit_lens import Guess, LensLoop, LogitLens, TokenView


def logit_lens(
    seen: Lens, decode: Callable[[Sequence[int]], str], name: str, prompt: str, parameters: int, top: int = 3
) -> LogitLens:
    """Return what every exit says after every token of the first sequence of a lens.

    Args:
        seen: the lens, of one text; its patches act.
        decode: ids to text, one at a time.
        name: of the model.
        prompt: the text that the ids are of.
        parameters: trained numbers of the model.
        top: likeliest tokens that are kept per token and loop.
    """
    ids: list[int] = seen.input_ids[0].tolist()
    texts: dict[int, str] = {}

    def text(token: int) -> str:
        if token not in texts:
            texts[token] = decode([token])
        return texts[token]

    loops = [LensLoop(view.loop, _tokens(view, ids, text, top)) for view in seen.stream(layers=[])]
    likeliest = [[token.guesses[0].token for token in loop.tokens] for loop in loops]
    return LogitLens(
        name=name,
        prompt=prompt,
        token_ids=tuple(ids),
        token_texts=tuple(map(text, ids)),
        trained_loops=seen.model.loops,
        loops=tuple(loops),
        settled=tuple(settled_at([row[place] for row in likeliest]) for place in range(len(ids))),
        layers=seen.layers,
        parameters=parameters,
    )


def settled_at(said: Sequence[int]) -> int:
    """Return the loop from which on what is said, loop by loop, is what the last one says."""
    loop = len(said)
    while loop > 1 and said[loop - 2] == said[-1]:
        loop -= 1
    return loop


def _tokens(
    view: LoopView, ids: Sequence[int], text: Callable[[int], str], top: int
) -> tuple[TokenView, ...]:
    logs = torch.log_softmax(wide(view.logits()[0]), dim=-1)  # [seq vocab]
    likely = logs.exp().topk(min(top, logs.shape[-1]), dim=-1)
    entropy = -(logs.exp() * logs.nan_to_num(neginf=0.0)).sum(dim=-1)
    after = torch.tensor(ids[1:], dtype=torch.int64, device=logs.device)
    following = logs[:-1].gather(1, after[:, None]).squeeze(1).exp().tolist()
    gate = view.gate()
    figures = zip(
        likely.indices.tolist(),
        likely.values.tolist(),
        [*following, None],
        entropy.tolist(),
        _row(gate, len(ids)),
        _row(view.rms, len(ids)),
        _row(view.l2_norm, len(ids)),
        _row(view.cosine, len(ids)),
        strict=True,
    )
    return tuple(
        TokenView(
            tuple(Guess(token, text(token), share) for token, share in zip(tokens, shares, strict=True)),
            *others,
        )
        for tokens, shares, *others in figures
    )


def _row(values: Tensor | None, count: int) -> list[float | None]:
    return [None] * count if values is None else values[0].tolist()
