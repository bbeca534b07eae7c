"""Drafts by an early exit: a shallow loop guesses several tokens, and one run of the loops behind it checks them all.

Self-speculative decoding (Zhang et al., "Draft & Verify", arXiv 2309.08168; by an early exit: Elhoushi et al.,
"LayerSkip", arXiv 2404.16710) for loops in place of layers. Nothing is computed twice: the loops behind the draft's
exit go on from its states. A guess that full depth would not have made is dropped: the text is that of full depth.
"""

from dataclasses import dataclass
from typing import Any

MOST_GUESSES = 64


@dataclass(frozen=True)
class Draft:
    """How tokens are guessed before full depth looks at them.

    Attributes:
        loops: the exit that guesses, from 1 up and before the last.
        tokens: guesses a round at most, from 1 up.
    """

    loops: Any = 1
    tokens: Any = 3

    def check(self, depth: int) -> None:
        """Refuse a draft that cannot be.

        Args:
            depth: loops that a token runs.

        Raises:
            ValueError: the setting, its value, what is allowed.
        """
        if depth < 2:
            raise ValueError(
                f"draft_loops is {self.loops!r}, and every token runs {depth} loop: there is no exit before its last. "
                "Leave it out, or ask for more loops"
            )
        if not (_whole(self.loops) and 1 <= self.loops < depth):
            raise ValueError(
                f"draft_loops is {self.loops!r}; it must be a whole number from 1 to {depth - 1}: an exit before the "
                f"last of {depth} loops"
            )
        if not (_whole(self.tokens) and 1 <= self.tokens <= MOST_GUESSES):
            raise ValueError(
                f"draft_tokens is {self.tokens!r}; it must be a whole number from 1 to {MOST_GUESSES}: how many tokens "
                "are guessed before full depth looks at them"
            )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
