"""Text that a tokenizer loses: what it makes of bits per byte, and when that is said.

An unknown token stands for any text. It costs the few bits of a frequent token and its bytes count in full, and what a
tokenizer skips costs nothing at all: bits per byte are then too low, and compare between models of one tokenizer only.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from loopscope.data.tokenfile import TOKENS_AT_ONCE
from loopscope.data.tokenizers.base import AbstractTokenizer

WORTH_SAYING = 0.01
"""Share of the tokens, or of the bytes, above which it is said."""


@dataclass(frozen=True)
class LostText:
    """What a text lost on its way into tokens."""

    unknown: float  # share of the tokens that stand for unknown text
    unread: float | None  # share of the bytes that no known token stands for; None where nobody counts them


def lost_text(
    tokenizer: AbstractTokenizer, ids: Integer[np.ndarray, " tokens"], text_bytes: int | None
) -> LostText:
    """Return what of a text its tokens do not hold.

    Args:
        text_bytes: UTF-8 bytes of the text; None where they are not known.
    """
    if tokenizer.unknown_id is None or len(ids) == 0:
        return LostText(0.0, 0.0)
    unknown = 0
    known: int | None = 0
    for start in range(0, len(ids), TOKENS_AT_ONCE):
        part = np.asarray(ids[start : start + TOKENS_AT_ONCE])
        unknown += int((part == tokenizer.unknown_id).sum())
        counted = tokenizer.known_bytes(part)
        known = None if known is None or counted is None else known + counted
    unread = None if known is None or not text_bytes else max(0.0, 1 - known / text_bytes)
    return LostText(unknown / len(ids), unread)


def lost_text_note(unknown: float | None, unread: float | None, whose: str = "the tokenizer") -> str | None:
    """Return what to say of a text that lost more than `WORTH_SAYING` of its tokens or bytes; None of less.

    Args:
        unknown: as `LostText` has it; None where it is not known.
        unread: as `LostText` has it.
        whose: tokenizer it is, in words.
    """
    if max(unknown or 0.0, unread or 0.0) <= WORTH_SAYING:
        return None
    shares = [f"{unknown or 0.0:.1%} of the tokens of the validation text are unknown to {whose}"]
    if unread is not None:
        shares.append(f"{unread:.1%} of its bytes stand for no known token")
    return (
        f"{', and '.join(shares)}: bits per byte are too low, and compare between models of this tokenizer only. "
        "data.tokenizer: bpe (or bytes) loses nothing"
    )
