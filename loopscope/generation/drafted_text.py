"""Text in rounds: an early exit guesses some tokens, full depth decides, and a row keeps what stands.

Greedy text is the one without a draft. Drawn text has the distribution of the one without a draft, and other draws; it
depends on its row's seed and logits alone, as ever.
"""

from collections.abc import Generator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopscope.generation.draft import Draft
from loopscope.generation.drafted_steps import DraftedSteps
from loopscope.generation.growing_texts import GrowingTexts, NewToken
from loopscope.generation.sampling import NO_GUESS, EarlyGuess
from loopscope.generation.settings import inference


def rounds(
    steps: DraftedSteps,
    draft: Draft,
    texts: GrowingTexts,
    tokens: Int[Tensor, " rows"],
    parts: Sequence[nn.Module],
) -> Generator[list[NewToken], None, None]:
    """Yield new tokens, one of every row whose guesses stood so far; rounds follow each other until all have ended.

    Args:
        tokens: the newest token of every row, which is read first.
        parts: the model's modules, listed once.
    """
    while texts.rows:
        wanted = [min(draft.tokens, left - 1) for left in texts.left]
        with inference(parts):
            steps.begin(torch.tensor(wanted))
            guesses = _guesses(steps, texts, tokens, wanted)
            logits = steps.verify()
        places, newest, ended = list(range(len(wanted))), tokens.tolist(), set[int]()
        taken = [0] * len(wanted)
        for ahead, guess in enumerate(guesses):
            own = guess.at(places)
            with inference(parts):
                drawn = texts.judge(logits[places, ahead], own, places)
            stands = (drawn == own.tokens.to(drawn.device)).tolist()
            new_tokens = texts.add(drawn.tolist(), [steps.loops] * len(places), places, stands)
            yield new_tokens
            for place, new in zip(places, new_tokens, strict=True):
                taken[place], newest[place] = taken[place] + 1, new.token
                if new.ended is not None:
                    ended.add(place)
            places = [
                place for place, kept in zip(places, stands, strict=True) if kept and place not in ended
            ]
            if not places:
                break
        going = [place for place in range(len(wanted)) if place not in ended]
        steps.accept(torch.tensor(taken))
        if ended and going:
            steps.select(torch.tensor(going, device=tokens.device))
        tokens = torch.tensor([newest[place] for place in going], device=tokens.device)
        texts.keep(going)


def _guesses(
    steps: DraftedSteps, texts: GrowingTexts, tokens: Int[Tensor, " rows"], wanted: Sequence[int]
) -> list[EarlyGuess]:
    """Let the draft's exit guess as many tokens as every row wants; the last of all rows is none."""
    found = []
    for ahead in range(max(wanted)):
        guess = texts.guess(
            steps.guess(tokens), [place for place, count in enumerate(wanted) if ahead < count]
        )
        own = guess.tokens.to(tokens.device)  # the head may be elsewhere than the embedding
        tokens = torch.where(own == NO_GUESS, tokens, own)
        found.append(guess)
    steps.take(tokens)
    return [*found, EarlyGuess(torch.full_like(tokens, NO_GUESS), None)]
