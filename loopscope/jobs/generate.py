"""`loopscope.generate`: plain arguments to generation's settings, and exit rules by name.

Generation itself knows no rule by name, and evaluation's rules know no generation: here they meet.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loopscope.data.tokenizers import AbstractTokenizer, ByteTokenizer
from loopscope.evaluation.exits.rules import RULES, AbstractExitRule, Look, build_rule
from loopscope.evaluation.exits.scores import score_tokens
from loopscope.generation.decoder import Generated, generate_tokens
from loopscope.generation.draft import Draft
from loopscope.generation.exits import Decision, ExitRule
from loopscope.generation.padding import pad
from loopscope.generation.sampling import Sampling
from loopscope.generation.settings import Settings, check_prompts, new_tokens_that_fit, per_row
from loopscope.generation.stopping import Stopping
from loopscope.generation.streaming import Tokenizer
from loopscope.guards import device_of
from loopscope.jobs.opened import OpenedModel, config_setting
from loopscope.ops.narrow_products import products_of
from loopscope.recurrence import AbstractLoopedLM, LoopState
from loopscope.results.layout import TOKENIZER


def generate(
    model: Any,
    input_ids: Any,
    new_tokens: int | Sequence[int] | None = None,
    *,
    attention_mask: Tensor | None = None,
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> Generated:
    """Go on with token ids, row by row. Greedy unless told otherwise.

    Args:
        model: any looped model. Native models keep keys and values per loop and layer; models of others use the cache
            of their family's own `generate`, or are computed anew for every token. The text is the same.
        input_ids: prompts, [batch, seq].
        new_tokens: at most so many per row, from 1 up, or a list of one number per row. None: 128, or fewer where a
            model has no positions for more, with a warning that says so; a number that does not fit is refused.
        attention_mask: [batch, seq], 1 at tokens, 0 at padding (left or right). A padded row gets what it gets alone.
        tokenizer: for `.texts` and for stop strings; anything with `generate_tokens(ids)`.
        options: `loops` (any depth from 1 up, or a list of one per row), `temperature`, `top_k`, `top_p`, `min_p`,
            `seed` (row r draws with seed + r), `exit_rule` and `threshold` (a name of `loopscope evaluate exits`, or an
            object with `decide`; or lists of one per row), `missing` (lazy, fill, reuse), `eos` (token ids), `stop`
            (strings), `cache` (False: compute anew; of a model of transformers also a kind: dynamic, static, offloaded,
            quantized, none), `prompt_piece` (tokens of the prompt that are read at once), `draft_loops` (the exit that
            guesses tokens for full depth to check, several at once: the same text for fewer reads of the weights),
            `draft_tokens` (guesses a round; 3), `compile` (True: steps over the cache through torch.compile: half a
            minute the first time, then faster at small sizes).

    Returns:
        `.tokens`, `.loops`, `.texts` and `.ended` per row, `.mean_loops` and `.guessed_share` over all.

    Raises:
        ValueError: bad input, before anything runs: what it is, what is allowed.

    Example:
        >>> made = loopscope.generate(model, ids, 64, temperature=0.8, top_p=0.95, seed=1)
        >>> made = loopscope.generate(model, ids, 64, exit_rule="max-probability", threshold=0.9)
        >>> made = loopscope.generate(model, ids, 64, draft_loops=1)
    """
    check_prompts(model, input_ids)
    if new_tokens is None:
        new_tokens = new_tokens_that_fit(model, input_ids.shape[-1])
    settings = build_settings(model, new_tokens, tokenizer, **options)
    with products_of(model):
        return generate_tokens(model, input_ids, settings, attention_mask)


def generate_text(
    opened: OpenedModel,
    prompts: str | Sequence[str],
    new_tokens: int | Sequence[int] | None = None,
    **options: Any,
) -> Generated:
    """Go on with one text or several, with the model's own tokenizer; see `generate`.

    Args:
        opened: `loopscope.jobs.open_model(path)`.

    Example:
        >>> opened = open_model("runs/raw")
        >>> generate_text(opened, ["def main(", "import "], 40, temperature=0.8).texts
    """
    tokenizer = tokenizer_of(opened)
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    ids, mask = pad([encode(tokenizer, text) for text in texts])
    return generate(opened.model, ids, new_tokens, attention_mask=mask, tokenizer=tokenizer, **options)


def tokenizer_of(opened: OpenedModel) -> AbstractTokenizer:
    """The model's tokenizer; bytes where it has none and its vocabulary is large enough, and a warning.

    Raises:
        ValueError: no tokenizer, and too few ids for bytes.
    """
    if opened.tokenizer is not None:
        return opened.tokenizer
    if (config_setting(opened, "vocabulary", "vocab_size") or 0) < ByteTokenizer().vocabulary_size:
        raise ValueError(
            f"{opened.path} has no {TOKENIZER}, so text cannot be read or written; use loopscope.generate with "
            "token ids, or put the tokenizer beside the model"
        )
    warnings.warn(f"{opened.path} has no {TOKENIZER}; its tokens are taken to be bytes", stacklevel=2)
    return ByteTokenizer()


def encode(tokenizer: AbstractTokenizer, text: str) -> list[int]:
    """Ids of a prompt.

    Raises:
        ValueError: an empty prompt.
    """
    ids = [int(token) for token in tokenizer.encode(text)]
    if not ids:
        raise ValueError(
            f"the prompt is empty ({text!r} has no tokens); the first token is predicted from one before it, so give "
            "at least one"
        )
    return ids


def build_settings(
    model: AbstractLoopedLM, new_tokens: Any, tokenizer: Tokenizer | None = None, **options: Any
) -> Settings:
    """Settings from the options of `generate`.

    Raises:
        ValueError: an option that does not exist, a rule that does not fit the model.
    """
    unknown = options.keys() - _OPTIONS
    if unknown:
        raise ValueError(
            f"unknown option {', '.join(sorted(unknown))}; there are {', '.join(sorted(_OPTIONS))}"
        )
    sampling = Sampling(**{name: options.get(name) for name in _SAMPLING})
    return Settings(
        stopping=Stopping(new_tokens, _several(options.get("eos", ())), _several(options.get("stop", ()))),
        sampling=sampling,
        loops=options.get("loops"),
        rule=_rules(options.get("exit_rule"), options.get("threshold"), model),
        missing=options.get("missing", "lazy"),
        cache=options.get("cache", True),
        prompt_piece=options.get("prompt_piece"),
        draft=_draft(options.get("draft_loops"), options.get("draft_tokens")),
        compile=options.get("compile", False),
        tokenizer=tokenizer,
    )


def _draft(loops: Any, tokens: Any) -> Draft | None:
    """The draft that is asked for, or None."""
    if loops is None and tokens is not None:
        raise ValueError(
            f"draft_tokens is {tokens!r}, and no draft_loops says which exit guesses them; give it, such as 1"
        )
    if loops is None:
        return None
    return Draft(loops) if tokens is None else Draft(loops, tokens)


def _rules(
    named: Any, threshold: Any, model: AbstractLoopedLM
) -> ExitRule | Sequence[ExitRule | None] | None:
    """The rule of all rows, or a list of one per row where names or thresholds are lists."""
    lists = [value for value in (named, threshold) if isinstance(value, list | tuple)]
    if not lists:
        return _rule(named, threshold, model)
    names = per_row("exit_rule", named, len(lists[0]))
    thresholds = per_row("threshold", threshold, len(lists[0]))
    if len(lists) == 1 and isinstance(named, list | tuple):  # one threshold: of the rows that have a rule
        thresholds = [None if name is None else threshold for name in names]
    pairs = [
        (name if isinstance(name, str) else id(name), name, number)
        for name, number in zip(names, thresholds, strict=True)
    ]
    built = {(key, number): _rule(name, number, model) for key, name, number in pairs}
    return [built[key, number] for key, _, number in pairs]


def _rule(named: Any, threshold: Any, model: AbstractLoopedLM) -> ExitRule | None:
    if isinstance(named, str):
        return exit_rule(named, threshold, model)
    if threshold is not None:
        raise ValueError(
            f"threshold is {threshold!r}, but no exit_rule is named; name one of {', '.join(_RUNNABLE)}"
        )
    rule: ExitRule | None = named
    return rule


def exit_rule(name: str, threshold: Any, model: AbstractLoopedLM) -> ExitRule:
    """One of evaluation's rules, with its threshold, as generation asks it.

    Raises:
        ValueError: no such rule, a bound that cannot be run, a threshold out of range, or a model without what the
            rule reads (a gate).
    """
    rule = build_rule(name)
    if not isinstance(rule, AbstractExitRule):
        raise ValueError(
            f"exit rule {name!r} knows the labels: a bound, not a rule to run. Use {', '.join(_RUNNABLE)}"
        )
    if threshold is None:
        raise ValueError(
            f"exit rule {name!r} needs a threshold; `loopscope evaluate exits` finds one that holds, per token with "
            "--unit token"
        )
    number = rule.check_threshold(threshold)
    rule.check_model(model, torch.zeros(1, 1, dtype=torch.int64, device=device_of(model)))
    return TokenRule(rule, number)


@dataclass(frozen=True)
class TokenRule:
    """A rule and its threshold, per token."""

    rule: AbstractExitRule
    threshold: float

    def decide(self, state: LoopState, before: Mapping[str, Tensor]) -> Decision:
        look = Look(state)
        scores, kept = score_tokens(self.rule, look, before)
        known = look.logits[:, -1] if "logits" in self.rule.needs else None
        return Decision(self.rule.fires(scores[:, -1], self.threshold), kept, known)


def _several(value: Any) -> tuple[Any, ...]:
    """One or many, as a tuple."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")
_OPTIONS = {
    *(*_SAMPLING, "loops", "exit_rule", "threshold", "missing", "eos", "stop", "cache", "prompt_piece"),
    *("draft_loops", "draft_tokens", "compile"),
}
_RUNNABLE = [name for name, rule in RULES.items() if issubclass(rule, AbstractExitRule)]
