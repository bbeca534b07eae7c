"""Text of one model from one prompt, as it comes: from a path to pieces of text, and what they took."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from loopscope.generation.decoder import stream
from loopscope.generation.growing_texts import NewToken
from loopscope.generation.settings import new_tokens_that_fit
from loopscope.interop.working_depth import check_depth
from loopscope.jobs.generate import build_settings, encode, tokenizer_of
from loopscope.jobs.opened import OpenedModel, open_model
from loopscope.results import load_evaluation


@dataclass
class TextStream:
    """Iterate it once for the text; the rest is known when that has ended."""

    name: str  # of the model
    depth: int  # loops of a token that does not leave early
    threshold: float | None  # of the exit rule
    calibrated: str | None  # why that threshold, where an evaluation has found it
    steps: Iterator[list[NewToken]]
    news: list[NewToken] = field(default_factory=list)
    seconds: float = 0.0

    def __iter__(self) -> Iterator[str]:
        began = time.perf_counter()
        for step in self.steps:
            self.news += step
            yield step[0].text
        self.seconds = time.perf_counter() - began

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(new.text for new in self.news)

    @property
    def loops(self) -> list[int]:
        """The loop at which each new token was read."""
        return [new.loops for new in self.news]

    @property
    def guessed(self) -> int:
        """How many of its tokens a draft had before full depth did."""
        return sum(new.guessed for new in self.news)

    @property
    def ended(self) -> str:
        """Why it ended: length, stop, eos."""
        return self.news[-1].ended or "length"


def stream_text(path: str | Path, prompt: str, new_tokens: int | None = None, **options: Any) -> TextStream:
    """Go on with a text, token by token, with the model's own tokenizer.

    Args:
        path: run folder, model folder or published file.
        new_tokens: at most so many; None: 128, or as many as the model has positions for.
        options: as `loopscope.generate` takes them. A rule without a threshold takes the one that an evaluation per
            token has calibrated at the trained depth, where there is one.

    Raises:
        ValueError: no model there, an empty prompt, or options that do not fit; before anything runs.
    """
    opened = open_model(path)
    depth = options.get("loops") or opened.model.loops
    if depth != opened.model.loops:
        check_depth(opened.model, depth)
    tokenizer = tokenizer_of(opened)
    calibrated = None
    if options.get("threshold") is None and options.get("exit_rule") is not None:
        options["threshold"], calibrated = calibrated_threshold(
            opened, options["exit_rule"], options.get("loops")
        )
    ids = torch.tensor([encode(tokenizer, prompt)])
    if new_tokens is None:
        new_tokens = new_tokens_that_fit(opened.model, ids.shape[1])
    settings = build_settings(opened.model, new_tokens, tokenizer, **options)
    steps = stream(opened.model, ids, settings)
    return TextStream(opened.name, depth, options.get("threshold"), calibrated, steps)


def calibrated_threshold(
    opened: OpenedModel, rule: str, loops: int | None
) -> tuple[float | None, str | None]:
    """Return the threshold that an evaluation has calibrated for tokens at this depth, and why; or two Nones."""
    if not opened.path.is_dir() or loops not in (None, opened.model.loops):
        return None, None
    kept = load_evaluation(opened.path)
    found = [
        each
        for each in (kept.exits.calibrations if kept and kept.exits else ())
        if each.rule == rule and each.unit == "token" and each.held and each.threshold is not None
    ]
    if not found:
        return None, None
    best = min(found, key=lambda each: each.target != "perplexity")  # quality before a budget
    return best.threshold, best.why
