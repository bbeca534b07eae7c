"""A model of bytes at one depth as lm-evaluation-harness takes a model, written the plain way."""

from collections.abc import Iterator
from typing import Any

import torch
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from loopscope.recurrence import AbstractLoopedLM, unroll

SPACE = ord("\n")
"""What stands before a text with nothing before it."""


class PlainLM(LM):  # type: ignore[misc]
    """A model of bytes at one depth, one request at a time, all logits at once: what one writes first."""

    def __init__(self, model: AbstractLoopedLM, loops: int, longest: int = 64) -> None:
        super().__init__()
        self.model, self.loops, self.longest = model, loops, longest

    @torch.no_grad()
    def logits(self, ids: list[int]) -> torch.Tensor:
        *_, last = unroll(self.model, torch.tensor([ids]), self.loops)
        return last.logits()[0]

    def score(self, before: list[int], scored: list[int]) -> tuple[float, bool]:
        ids = (before + scored)[-(self.longest + 1) :]
        logs = self.logits(ids[:-1]).log_softmax(dim=-1)[-len(scored) :]
        right = torch.tensor(scored)
        return float(logs.gather(1, right[:, None]).sum()), bool((logs.argmax(dim=-1) == right).all())

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        found = []
        for context, answer in (request.args for request in requests):
            whole, before = list((context + answer).encode()), list(context.rstrip().encode())
            found.append(self.score(before, whole[len(before) :]))
        return found

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        def windows(text: str) -> Iterator[tuple[list[int], list[int]]]:
            return map(
                make_disjoint_window,
                get_rolling_token_windows(
                    token_list=list(text.encode()),
                    prefix_token=SPACE,
                    max_seq_len=self.longest,
                    context_len=1,
                ),
            )

        return [sum(self.score(*pair)[0] for pair in windows(request.args[0])) for request in requests]

    def generate_until(self, requests: list[Any]) -> list[str]:
        texts = []
        for context, settings in (request.args for request in requests):
            ids, text = list(context.encode())[-(self.longest - settings["max_gen_toks"]) :], b""
            for _ in range(settings["max_gen_toks"]):
                ids.append(int(self.logits(ids)[-1].argmax()))
                text += bytes([ids[-1]])
            made = text.decode("utf-8", errors="replace")
            for end in settings["until"]:
                made = made.split(end)[0]
            texts.append(made)
        return texts
