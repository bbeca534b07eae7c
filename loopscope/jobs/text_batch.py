"""Texts of one model from a file of prompts, as one batch: every line may ask for something else."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from loopscope.generation.settings import new_tokens_that_fit
from loopscope.interop.working_depth import check_depth
from loopscope.jobs.generate import encode, generate_text, tokenizer_of
from loopscope.jobs.opened import OpenedModel, open_model
from loopscope.jobs.text_stream import calibrated_threshold

PER_LINE = ("prompt", "new_tokens", "loops", "exit_rule", "threshold")
"""What a line may say. All but the prompt are the command's where a line does not say them."""


@dataclass(frozen=True)
class TextBatch:
    """Texts that were made together, in the order of their prompts.

    Attributes:
        lines: of each text what was asked and what came: prompt, text, tokens, loops, depth, ended, rule, threshold,
            guessed.
        seconds: that all of them took.
    """

    name: str
    lines: tuple[Mapping[str, Any], ...]
    seconds: float


def generate_batch(
    path: str | Path, prompts: str | Path, new_tokens: int | None = None, **options: Any
) -> TextBatch:
    """Go on with every prompt of a file of JSON lines; each gets what it gets alone with its own settings.

    Args:
        path: run folder, model folder or published file.
        prompts: a file with one object a line: `prompt`, and what of `new_tokens`, `loops`, `exit_rule` and `threshold`
            is its own.
        new_tokens, options: of lines that do not say them; as `loopscope.generate` takes them.

    Raises:
        ValueError: no model there, a line that is no such object, or options that do not fit; before anything runs.
    """
    asked = [{"new_tokens": new_tokens, **options, **line} for line in _lines(Path(prompts))]
    opened = open_model(path)
    rows = [_filled(opened, row) for row in asked]
    own = {name: [row[name] for row in rows] for name in PER_LINE}
    shared = {name: value for name, value in options.items() if name not in PER_LINE}
    began = time.perf_counter()
    made = generate_text(opened, own.pop("prompt"), own.pop("new_tokens"), **own, **shared)
    seconds = time.perf_counter() - began
    lines = [
        {
            "model": opened.name,
            "prompt": row["prompt"],
            "text": text,
            "tokens": list(tokens),
            "loops": list(loops),
            "mean_loops": sum(loops) / len(loops),
            "depth": row["loops"],
            "ended": ended,
            "exit_rule": row["exit_rule"],
            "threshold": row["threshold"],
            "guessed": guessed,
        }
        for row, text, tokens, loops, ended, guessed in zip(
            rows, made.texts, made.tokens, made.loops, made.ended, made.guessed, strict=True
        )
    ]
    return TextBatch(opened.name, tuple(lines), seconds)


def _filled(opened: OpenedModel, row: Mapping[str, Any]) -> dict[str, Any]:
    """What a line asks for, with what nobody says filled in."""
    model = opened.model
    loops = model.loops if row.get("loops") is None else row["loops"]
    if loops != model.loops:
        check_depth(model, loops)
    rule, threshold, count = row.get("exit_rule"), row.get("threshold"), row.get("new_tokens")
    if rule is None:
        threshold = None
    elif threshold is None:
        threshold, _ = calibrated_threshold(opened, rule, loops)
    if count is None:
        count = new_tokens_that_fit(model, len(encode(tokenizer_of(opened), row["prompt"])))
    return {
        "prompt": row["prompt"],
        "new_tokens": count,
        "loops": loops,
        "exit_rule": rule,
        "threshold": threshold,
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompts {path} cannot be read as UTF-8 text: {error}") from error
    count = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number} of {path}"
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ValueError(
                f"{where} is no JSON ({error}); give one object a line, with a prompt"
            ) from error
        if not isinstance(found, dict) or not isinstance(found.get("prompt"), str):
            raise ValueError(
                f'{where} has no prompt; give an object such as {{"prompt": "def main(", "loops": 4}}'
            )
        for name in found.keys() - set(PER_LINE):
            near = get_close_matches(name, PER_LINE, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"{where} says {name!r}{hint} A line may say {', '.join(PER_LINE)}; the rest is the command's"
            )
        if several := [name for name, value in found.items() if isinstance(value, list | dict)]:
            raise ValueError(f"{where}: {several[0]} is {found[several[0]]!r}; a line says one value of each")
        count += 1
        yield found
    if not count:
        raise ValueError(f"prompts {path} has no lines; give one JSON object a line, with a prompt")
