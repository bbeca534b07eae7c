"""`loopscope generate`: text from a trained model, as it comes. Heavy imports are inside it."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from loopscope.cli.arguments import check_counts, parse

if TYPE_CHECKING:
    from loopscope.generation.decoder import NewToken
    from loopscope.jobs.opened import Subject


@dataclass(frozen=True)
class Generate:
    """Go on with a text. It is printed as it comes; speed and mean loops follow on standard error.

    Greedy, unless one of temperature, top-k, top-p and min-p is given. With an exit rule every token stops looping
    when the rule says so.

    Example:
        loopscope generate runs/raw --prompt 'def main('
        loopscope generate runs/raw --prompt-file start.txt --new-tokens 64 --temperature 0.8 --top-p 0.95 --seed 1
        loopscope generate runs/raw --prompt 'import ' --exit-rule max-probability --threshold 0.9 --missing lazy
        loopscope generate last.pt --prompt 'The ' --loops 8 --json
    """

    path: tyro.conf.Positional[Path]
    """Run folder, model folder or published last.pt."""
    prompt: str | None = None
    """Text to go on with."""
    prompt_file: Path | None = None
    """File that holds it; `-` reads standard input."""
    new_tokens: int = 128
    """At most so many tokens."""
    loops: int | None = None
    """Depth, also past the trained one; the trained depth by default."""
    temperature: float | None = None
    """What logits are divided by before a token is drawn."""
    top_k: int | None = None
    """Draw from the k likeliest tokens."""
    top_p: float | None = None
    """Draw from the likeliest tokens that together have this probability."""
    min_p: float | None = None
    """Draw from tokens with at least this share of the likeliest's probability."""
    seed: int | None = None
    """The same seed draws the same text."""
    exit_rule: str | None = None
    """Let every token leave early: logit-margin, max-probability, hidden-step, gate, …"""
    threshold: float | None = None
    """Of the rule; where `loopscope evaluate exits --unit token` has found one, that by default."""
    missing: Literal["lazy", "fill", "reuse"] = "lazy"
    """What deeper loops see of a token that left: computed when needed (exact), its exited state, its last loop."""
    stop: tuple[str, ...] = ()
    """Texts that end it; they are not printed."""
    cache: bool = True
    """Keep keys and values; without, everything is computed anew for every token."""
    threads: int | None = None
    """CPU threads; torch's choice by default."""
    json: bool = False
    """Print one JSON object with text, tokens and loops, and nothing else."""


def generate(arguments: Sequence[str]) -> None:
    """`loopscope generate`."""
    command = parse(Generate, "generate", arguments)
    prompt = _prompt(command)
    check_counts(command, "threads")
    import torch

    from loopscope.generation.decoder import stream
    from loopscope.jobs.generate import build_settings, encode, tokenizer_of
    from loopscope.jobs.opened import open_subject

    if command.threads:
        torch.set_num_threads(command.threads)
    subject = open_subject(command.path)
    tokenizer = tokenizer_of(subject)
    threshold = _threshold(command, subject)
    options = {name: getattr(command, name) for name in _OPTIONS} | {"threshold": threshold}
    settings = build_settings(subject.model, command.new_tokens, tokenizer, **options)
    ids = torch.tensor([encode(tokenizer, prompt)])
    news: list[NewToken] = []
    began = time.perf_counter()
    for step in stream(subject.model, ids, settings):
        news += step
        if not command.json:
            print(step[0].text, end="", flush=True)
    seconds = time.perf_counter() - began
    if command.json:
        print(json.dumps(_values(command, prompt, threshold, news, seconds, subject), ensure_ascii=False))
        return
    print(flush=True)
    mean = sum(new.loops for new in news) / len(news)
    depth = command.loops or subject.model.loops
    exits = f", {mean:.2f} of {depth} loops" if command.exit_rule else f", {depth} loops"
    print(
        f"{len(news)} tokens in {seconds:.2f} s, {len(news) / seconds:.1f} tokens/s{exits}, ended by "
        f"{_ENDED[news[-1].ended or 'length']}",
        file=sys.stderr,
    )


_OPTIONS = (
    "loops",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "exit_rule",
    "missing",
    "stop",
    "cache",
)
_ENDED = {"length": "length", "stop": "a stop string", "eos": "an end token"}


def _prompt(command: Generate) -> str:
    if (command.prompt is None) == (command.prompt_file is None):
        raise ValueError(
            "give the text to go on with: --prompt TEXT, or --prompt-file FILE (- for standard input)"
        )
    if command.prompt_file is None:
        return command.prompt or ""
    if str(command.prompt_file) == "-":
        return sys.stdin.read()
    try:
        return command.prompt_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"prompt-file {command.prompt_file} cannot be read as UTF-8 text: {error}"
        ) from error


def _threshold(command: Generate, subject: "Subject") -> float | None:
    """The threshold given, or the one that an evaluation has calibrated for tokens, at the depth it was chosen for."""
    if command.threshold is not None or command.exit_rule is None or not subject.path.is_dir():
        return command.threshold
    if command.loops not in (None, subject.model.loops):
        return None
    from loopscope.results import load_evaluation

    kept = load_evaluation(subject.path)
    found = [
        each
        for each in (kept.exits.calibrations if kept and kept.exits else ())
        if each.rule == command.exit_rule
        and each.unit == "token"
        and each.held
        and each.threshold is not None
    ]
    if not found:
        return None
    best = min(found, key=lambda each: each.target != "perplexity")  # quality before a budget
    print(f"threshold {best.threshold:.6g}, as calibrated: {best.why}", file=sys.stderr)
    return best.threshold


def _values(
    command: Generate,
    prompt: str,
    threshold: float | None,
    news: "list[NewToken]",
    seconds: float,
    subject: "Subject",
) -> dict[str, Any]:
    loops = [new.loops for new in news]
    return {
        "model": subject.name,
        "prompt": prompt,
        "text": "".join(new.text for new in news),
        "tokens": [new.token for new in news],
        "loops": loops,
        "mean_loops": sum(loops) / len(loops),
        "depth": command.loops or subject.model.loops,
        "ended": news[-1].ended,
        "exit_rule": command.exit_rule,
        "threshold": threshold,
        "missing": command.missing if command.exit_rule else None,
        "seconds": seconds,
        "tokens_per_second": len(news) / seconds,
    }
