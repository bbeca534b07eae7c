"""The texts of a batch that go on: what each gets next, and which have ended."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from loopscope.generation.sampling import EarlyGuess, Sampler
from loopscope.generation.settings import Settings
from loopscope.generation.stopping import Ending, Reason


@dataclass(frozen=True)
class NewToken:
    """One new token of one row of the batch.

    Attributes:
        row: of the batch that was given.
        loops: the loop at which it was read.
        text: what is certain to be text now; empty without a tokenizer, or while characters are incomplete.
        ended: why the row ends with it, or None.
        guessed: whether a draft had it before full depth did.
    """

    row: int
    token: int
    loops: int
    text: str
    ended: Reason | None
    guessed: bool = False


class GrowingTexts:
    """Rows that go on. A place is a row's among those; its number in the batch that was given never changes.

    Attributes:
        rows: numbers of the rows that go on.
        left: new tokens that each of them may still have.
    """

    def __init__(
        self, settings: Settings, settings_by_row: Sequence[Settings], prompts: Sequence[Sequence[int]]
    ) -> None:
        self.rows = list(range(len(prompts)))
        self.left = [own.stopping.new_tokens for own in settings_by_row]
        self._endings = [
            Ending(own.stopping, settings.tokenizer, prompt)
            for own, prompt in zip(settings_by_row, prompts, strict=True)
        ]
        self._sampler = Sampler(settings.sampling, len(prompts))
        # Entries that the tokenizer does not have were never trained, and have no text.
        self._entries = getattr(settings.tokenizer, "vocabulary_size", None)

    def draw(
        self, logits: Float[Tensor, "places vocab"], places: Sequence[int] | None = None
    ) -> Int[Tensor, " places"]:
        """Return the next token of the rows at these places; None: of all."""
        return self._sampler.draw(logits[:, : self._entries], places)

    def guess(self, logits: Float[Tensor, "rows vocab"], places: Sequence[int]) -> EarlyGuess:
        """Return what an early exit would take for the rows at these places, and nothing for the others."""
        return self._sampler.guess(logits[:, : self._entries], places)

    def judge(
        self, logits: Float[Tensor, "places vocab"], guess: EarlyGuess, places: Sequence[int]
    ) -> Int[Tensor, " places"]:
        """Return the next token of the rows at these places, the guess where it stands."""
        return self._sampler.judge(logits[:, : self._entries], guess, places)

    def add(
        self,
        tokens: Sequence[int],
        loops: Sequence[int],
        places: Sequence[int] | None = None,
        guessed: Sequence[bool] | None = None,
    ) -> list[NewToken]:
        """Add a token to the rows at these places (None: all), and return what is new of each."""
        at = range(len(self.rows)) if places is None else places
        flags = [False] * len(tokens) if guessed is None else guessed
        made = []
        for place, token, depth, flag in zip(at, tokens, loops, flags, strict=True):
            row = self.rows[place]
            self.left[place] -= 1
            made.append(NewToken(row, token, depth, *self._endings[row].push(token), guessed=flag))
        return made

    def keep(self, places: Sequence[int]) -> None:
        """Keep only the rows at these places: all others have ended."""
        self.rows = [self.rows[place] for place in places]
        self.left = [self.left[place] for place in places]
        self._sampler.select(list(places))
