"""The model that lm-evaluation-harness asks: a looped one that answers for one depth, and learns all depths at once.

The first time a request for a likelihood comes, one unroll scores it at every depth; at the other depths the answer is
there. Text is generated at each depth by itself. Contexts are cut and split, and windows of long texts laid, as the
harness's own model of transformers does it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from loopscope.evaluation.depth.readings import one_unroll_serves
from loopscope.evaluation.tasks.text_scores import ScoredText, TextScore, score_texts
from loopscope.guards import device_of, evaluating
from loopscope.recurrence import AbstractLoopedLM

HARNESS_NEW_TOKENS = 256
"""Of a text whose task names no number, as the harness has it."""
_CHECKED_TOKENS = 64
"""Of a text on which one unroll is compared with a run per depth."""


@runtime_checkable
class TaskTokenizer(Protocol):
    """What the harness's requests need of a tokenizer.

    Attributes:
        prefix: the id that stands before a text with nothing before it: BOS, else EOS, else what the user named.
        end: the id that ends a text; None where there is none.
        end_text: its text.
    """

    prefix: int | None
    end: int | None
    end_text: str | None

    def encode(self, text: str, special: bool | None = None) -> list[int]:
        """Return the ids of a text; `special` says whether BOS may come first, None leaves it to the tokenizer."""

    def decode(self, ids: Any) -> str:
        """Return the text of ids, without special ones."""


Writer = Callable[[list[list[int]], int, Mapping[str, Any], int], Sequence[str]]
"""Goes on with texts: their ids, loops, settings (new_tokens, stop, eos, temperature, …), and a seed."""


class DepthLM(TemplateLM):  # type: ignore[misc]
    """A looped model at one of several depths, as lm-evaluation-harness takes a model.

    Attributes:
        depth: the one that it answers for now.
        cut: requests whose context lost its beginning, by task.
        apart: whether every depth takes an unroll of its own; None: nothing was asked yet.
    """

    def __init__(
        self,
        model: AbstractLoopedLM,
        tokenizer: TaskTokenizer,
        write: Writer,
        depths: Sequence[int],
        longest: int,
        batch: int,
        name: str,
        progress: Callable[[str, int, int], object] = lambda what, done, of: None,
    ) -> None:
        """
        Args:
            longest: tokens that the model reads; what is longer is cut on its left.
            progress: called with what is being done, how many requests are done, and of how many.
        """
        super().__init__()
        self.looped, self.text, self.write, self.name = model, tokenizer, write, name
        self.depths, self.longest, self.batch, self.progress = tuple(depths), longest, batch, progress
        self.depth = self.depths[0]
        self.cut: Counter[str] = Counter()
        self.apart: bool | None = None
        self._pairs: dict[tuple[str, str], dict[int, TextScore]] = {}
        self._rolling: dict[str, dict[int, float]] = {}

    @property
    def eot_token_id(self) -> int | None:
        return self.text.end

    @property
    def prefix_token_id(self) -> int | None:
        return self.text.prefix

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.text.encode(string, add_special_tokens)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[TextScore]:
        """Return each request's answer at the present depth."""
        new = list(
            {request.args: request for request in requests if request.args not in self._pairs}.values()
        )
        for request in new:
            context, answer = request.args
            if not context.strip() and self.text.prefix is None:
                raise ValueError(
                    f"a text of task {request.task_name} has nothing before it, and {self._no_prefix()}"
                )
            if not self.text.encode(answer, False):
                raise ValueError(
                    f"the tokenizer of {self.name} has no tokens for {answer!r}, an answer of task {request.task_name}"
                    ": its likelihood would say nothing"
                )
        if new:
            self._tasks = [str(request.task_name) for request in new]
            super().loglikelihood(new, disable_tqdm=True)
        return [self._pairs[request.args][self.depth] for request in requests]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **more: Any
    ) -> list[TextScore]:
        """Score new requests at all depths, and keep what came."""
        texts = []
        for (pair, context, answer), task in zip(requests, self._tasks, strict=True):
            texts.append(self._fitted(context, answer, task, pair[1]))
        scores = self._score(texts, "scoring answers")
        for number, (pair, _, _) in enumerate(requests):
            self._pairs[pair] = {depth: scores[depth][number] for depth in self.depths}
        return [self._pairs[pair][self.depth] for pair, _, _ in requests]

    def _fitted(self, context: list[int], answer: list[int], task: str, said: str) -> ScoredText:
        """A request without the beginning that the model has no positions for."""
        if not answer:
            raise ValueError(
                f"{said[:80]!r}, an answer of task {task}, has no token of its own: the tokenizer of {self.name} "
                "joins it to the text before it; let the answer begin with a space in the task"
            )
        if len(answer) > self.longest:
            raise ValueError(
                f"{said[:80]!r}, an answer of task {task}, is {len(answer)} tokens, and {self.name} reads at most "
                f"{self.longest}; --length says how many it reads"
            )
        if not context:
            if self.text.prefix is None:
                raise ValueError(
                    f"a text of task {task} has no tokens before what is scored, and {self._no_prefix()}"
                )
            context = [self.text.prefix]
        tokens = (*context, *answer)
        if len(tokens) > self.longest + 1:
            self.cut[task] += 1
            tokens = tokens[-(self.longest + 1) :]
        return ScoredText(tokens, len(answer))

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each whole text at the present depth, window by window."""
        new = list(dict.fromkeys(text for (text,) in (r.args for r in requests) if text not in self._rolling))
        if new and self.text.prefix is None:
            raise ValueError(
                f"task {requests[0].task_name} scores texts from their first token, and {self._no_prefix()}"
            )
        windows = [list(map(make_disjoint_window, self._windows(text))) for text in new]
        texts = [ScoredText((*before, *scored), len(scored)) for of in windows for before, scored in of]
        # Of empty texts there is nothing to score: each has the log-likelihood 0.
        scores = self._score(texts, "scoring texts") if texts else {depth: [] for depth in self.depths}
        done = 0
        for text, of in zip(new, windows, strict=True):
            self._rolling[text] = {
                depth: sum((score.log_likelihood for score in scores[depth][done : done + len(of)]), 0.0)
                for depth in self.depths
            }
            done += len(of)
        return [self._rolling[request.args[0]][self.depth] for request in requests]

    def _windows(self, text: str) -> Any:
        return get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.text.prefix,
            max_seq_len=self.longest,
            context_len=1,
        )

    def _score(self, texts: list[ScoredText], what: str) -> dict[int, list[TextScore]]:
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            self.progress(what, done, len(texts))

        if self.apart is None:
            self.apart = not self._one_unroll(texts[0])
        return score_texts(self.looped, texts, self.depths, self.batch, self.apart, count)

    def _one_unroll(self, text: ScoredText) -> bool:
        ids = torch.tensor([text.tokens[:-1][:_CHECKED_TOKENS]], device=device_of(self.looped))
        with evaluating(self.looped):
            return len(self.depths) == 1 or one_unroll_serves(self.looped, ids, self.depths)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Go on with each request's text at the present depth."""
        answers: list[str] = [""] * len(requests)
        groups: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            groups[repr(sorted(request.args[1].items()))].append(number)
        done = 0
        for numbers in groups.values():
            settings, until = self._settings(requests[numbers[0]])
            room = self.longest - settings["new_tokens"]
            contexts = {number: self._context(requests[number], room) for number in numbers}
            numbers.sort(key=lambda number: -len(contexts[number]))
            for start in range(0, len(numbers), self.batch):
                part = numbers[start : start + self.batch]
                made = self.write([contexts[number] for number in part], self.depth, settings, start)
                for number, text in zip(part, made, strict=True):
                    answers[number] = postprocess_generated_text(text, until, None)
                done += len(part)
                self.progress(f"writing at {self.depth} loops", done, len(requests))
        return answers

    def _settings(self, request: Any) -> tuple[dict[str, Any], list[str]]:
        """What a task asks of generation, in Loopscope's words, and the strings that end a text."""
        asked = dict(normalize_gen_kwargs(request.args[1], HARNESS_NEW_TOKENS))
        new_tokens = int(asked.pop("max_gen_toks"))
        until = [text for text in handle_stop_sequences(asked.pop("until", None), self.text.end_text) if text]
        settings: dict[str, Any] = {"new_tokens": new_tokens, "stop": tuple(until)}
        settings["eos"] = () if self.text.end is None else (self.text.end,)
        drawn = {name: asked.pop(name, None) for name in ("temperature", "top_p", "top_k", "min_p")}
        if asked.pop("do_sample", False) and drawn["temperature"]:
            settings |= {name: value for name, value in drawn.items() if value not in (None, 0, 1.0, -1)}
            settings["temperature"] = float(drawn["temperature"])
        foreign = {name: value for name, value in asked.items() if value not in (None, False, 1, 1.0)}
        if foreign:
            listed = ", ".join(f"{name}={value!r}" for name, value in foreign.items())
            raise ValueError(
                f"task {request.task_name} asks generation for {listed}, which Loopscope's does not have"
            )
        if new_tokens >= self.longest:
            raise ValueError(
                f"task {request.task_name} asks for up to {new_tokens} new tokens, and {self.name} reads "
                f"{self.longest} tokens; give the task a smaller max_gen_toks, or --length over {new_tokens} where "
                "the model has positions for them"
            )
        return settings, until

    def _context(self, request: Any, room: int) -> list[int]:
        ids = self.tok_encode(request.args[0])
        if not ids:
            if self.text.prefix is None:
                raise ValueError(f"a prompt of task {request.task_name} is empty, and {self._no_prefix()}")
            return [self.text.prefix]
        if len(ids) > room and self.depth == self.depths[0]:
            self.cut[str(request.task_name)] += 1
        return ids[-room:]

    def _no_prefix(self) -> str:
        return (
            f"the tokenizer of {self.name} has neither a BOS nor an EOS token to stand there; name a text of one token "
            "that may: --prefix $'\\n'"
        )
