"""`loopscope generate`: text from a trained model, as it comes. Heavy imports are inside it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from loopscope.cli.arguments import parse
from loopscope.cli.values import DEEPEST, check_counts

if TYPE_CHECKING:
    from loopscope.jobs import TextBatch, TextStream


@dataclass(frozen=True)
class Generate:
    """Go on with a text. It is printed as it comes; speed and mean loops follow on standard error.

    Greedy, unless one of temperature, top-k, top-p and min-p is given. With an exit rule every token stops looping
    when the rule says so.

    Example:
        loopscope generate runs/raw --prompt 'def main('
        loopscope generate runs/raw --prompt-file start.txt --new-tokens 64 --temperature 0.8 --top-p 0.95 --seed 1
        loopscope generate runs/raw --prompt 'import ' --exit-rule max-probability --threshold 0.9 --missing lazy
        loopscope generate runs/raw --prompt 'import ' --draft-loops 1
        loopscope generate last.pt --prompt 'The ' --loops 8 --json
        loopscope generate runs/raw --prompts prompts.jsonl --new-tokens 32
    """

    path: tyro.conf.Positional[Path]
    """Run folder, model folder or published last.pt."""
    prompt: str | None = None
    """Text to go on with."""
    prompt_file: Path | None = None
    """File that holds it; `-` reads standard input."""
    prompts: Path | None = None
    """File of JSON lines, read as one batch: prompt, and its own new_tokens, loops, exit_rule, threshold."""
    new_tokens: int | None = None
    """At most so many tokens; 128 by default, or as many as the model has positions for."""
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
    cache_kind: str | None = None
    """Of a transformers model: which of its library's caches: dynamic, static, offloaded, quantized; its own choice."""
    prompt_piece: int | None = None
    """Tokens of the prompt that are read at once; all by default. Less memory for a long prompt, and the same text."""
    draft_loops: int | None = None
    """Let the exit after so many loops guess tokens, for all loops to check several at once: the same greedy text."""
    draft_tokens: int | None = None
    """Guesses that are checked at once; 3 by default."""
    compile: bool = False
    """Make steps through torch.compile: half a minute the first time, for long texts of small models."""
    threads: int | None = None
    """CPU threads; torch's choice by default."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of a transformers folder: type of its weights in memory, auto as stored. Audits measure in fp32 in any case."""
    device_map: str | None = None
    """Of a transformers folder: where its parts go: auto, cuda:0, a JSON object, …; accelerate places them."""
    json: bool = False
    """Print one JSON object with text, tokens and loops, and nothing else; --prompts prints one a line in any case."""


def generate(arguments: Sequence[str]) -> None:
    """`loopscope generate`."""
    command = parse(Generate, "generate", arguments)
    prompt = _prompt(command)
    check_counts(command, "loops", most=DEEPEST)
    from loopscope.jobs import generate_batch, load_with, stream_text, use_threads

    load_with(command.dtype, command.device_map)
    use_threads(command.threads)
    options = {name: getattr(command, name) for name in _OPTIONS}
    if command.cache_kind is not None:
        if not command.cache:
            raise ValueError(
                f"cache-kind is {command.cache_kind!r}, and --no-cache asks for none; leave one out"
            )
        options["cache"] = command.cache_kind
    if command.prompts is not None:
        _print_batch(generate_batch(command.path, command.prompts, command.new_tokens, **options))
        return
    made = stream_text(command.path, prompt, command.new_tokens, **options)
    if made.calibrated:
        print(f"threshold {made.threshold:.6g}, as calibrated: {made.calibrated}", file=sys.stderr)
    for piece in made:
        if not command.json:
            print(piece, end="", flush=True)
    if command.json:
        print(json.dumps(_values(command, prompt, made), ensure_ascii=False))
        return
    print(flush=True)
    count, mean = len(made.news), sum(made.loops) / len(made.loops)
    exits = f", {mean:.2f} of {made.depth} loops" if command.exit_rule else f", {made.depth} loops"
    if command.draft_loops is not None:
        exits += f", {made.guessed / count:.0%} of the tokens guessed at loop {command.draft_loops}"
    print(
        f"{count} tokens in {made.seconds:.2f} s, {count / made.seconds:.1f} tokens/s{exits}, ended by "
        f"{_ENDED[made.ended]}",
        file=sys.stderr,
    )
    if made.news and not made.text.strip():
        print(
            "the text is blanks and line breaks alone, which this model holds likeliest: train it longer, or draw with "
            "--temperature 1",
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
    "threshold",
    "missing",
    "stop",
    "cache",
    "prompt_piece",
    "draft_loops",
    "draft_tokens",
    "compile",
)
_ENDED = {"length": "length", "stop": "a stop string", "eos": "an end token"}


def _prompt(command: Generate) -> str:
    given = [command.prompt, command.prompt_file, command.prompts]
    if sum(source is not None for source in given) != 1:
        raise ValueError(
            "give the text to go on with: --prompt TEXT, or --prompt-file FILE (- for standard input), or several as "
            "--prompts FILE.jsonl"
        )
    if command.prompt_file is None:
        return command.prompt or ""
    if str(command.prompt_file) == "-":
        return sys.stdin.read()
    try:
        if (
            command.prompt_file.exists() and not command.prompt_file.is_file()
        ):  # a pipe would be waited for, for ever
            raise ValueError(
                f"prompt-file {command.prompt_file} is a folder, a pipe or a device; "
                "give a file, or - for standard input"
            )
        return command.prompt_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"prompt-file {command.prompt_file} cannot be read as UTF-8 text: {error}"
        ) from error


def _print_batch(batch: "TextBatch") -> None:
    """One JSON object a line, in the order of the prompts; then what all of them took."""
    for line in batch.lines:
        print(json.dumps(line, ensure_ascii=False))
    count = sum(len(line["tokens"]) for line in batch.lines)
    print(
        f"{len(batch.lines)} texts, {count} tokens in {batch.seconds:.2f} s, {count / batch.seconds:.1f} tokens/s",
        file=sys.stderr,
    )


def _values(command: Generate, prompt: str, made: "TextStream") -> dict[str, Any]:
    return {
        "model": made.name,
        "prompt": prompt,
        "text": made.text,
        "tokens": [new.token for new in made.news],
        "loops": made.loops,
        "mean_loops": sum(made.loops) / len(made.loops),
        "depth": made.depth,
        "ended": made.news[-1].ended,
        "exit_rule": command.exit_rule,
        "threshold": made.threshold,
        "missing": command.missing if command.exit_rule else None,
        "draft_loops": command.draft_loops,
        "guessed": made.guessed,
        "seconds": made.seconds,
        "tokens_per_second": len(made.news) / made.seconds,
    }
