"""Tokens: how the state's size is spread over tokens and channels (massive activations)."""

from collections.abc import Iterable, Sequence

from jaxtyping import Float
from torch import Tensor

from loopscope.numerics import l2_norm, wide
from loopscope.recurrence import LoopState
from loopscope.results import TokenNorms

TOP = 0.01
"""Share of tokens, and of channels, whose part of the squared norm is reported."""


def token_norms(
    states: Iterable[LoopState], largest: int = 5, places: Sequence[tuple[int, int]] | None = None
) -> list[TokenNorms]:
    """Return how token norms are distributed at every given state, with the `largest` tokens by place and id.

    Args:
        states: each looked at by itself.
        largest: how many of the largest tokens are named.
        places: (sequence, position) of every token, where the states do not have them.
    """
    return [_of(state.loop, wide(state.hidden), state.context.input_ids, largest, places) for state in states]


def _of(
    loop: int,
    hidden: Float[Tensor, "batch seq dim"],
    input_ids: Tensor,
    largest: int,
    places: Sequence[tuple[int, int]] | None,
) -> TokenNorms:
    norms = l2_norm(hidden)
    flat = norms.flatten().double()
    indices = flat.topk(min(largest, flat.numel())).indices.tolist()
    seq = norms.shape[1]
    return TokenNorms(
        loop=loop,
        count=flat.numel(),
        mean=float(flat.mean()),
        median=float(flat.quantile(0.5)),
        p99=float(flat.quantile(0.99)),
        max=float(flat.max()),
        min=float(flat.min()),
        std=float(flat.std(correction=0)),
        top_token_share=_top_share(flat.square()),
        top_channel_share=_top_share(hidden.double().square().sum(dim=(0, 1))),
        largest=tuple(
            (
                *(divmod(index, seq) if places is None else places[index]),
                int(input_ids.flatten()[index]),
                float(flat[index]),
            )
            for index in indices
        ),
    )


def _top_share(parts: Float[Tensor, " n"]) -> float:
    top = parts.topk(max(1, round(TOP * parts.numel()))).values
    return float(top.sum() / parts.sum())
