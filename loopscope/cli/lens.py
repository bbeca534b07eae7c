"""`loopscope lens`: what every exit says, token by token. Heavy imports are inside: `--help` never waits for torch."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from loopscope.cli.arguments import parse
from loopscope.cli.values import DEEPEST, check_counts
from loopscope.results.faults import concerning


@dataclass(frozen=True)
class LensPrompt:
    """A logit lens by loop: after every token of a prompt, what each exit would say, and from which loop on it stays.

    The states themselves, by loop and layer, and patches: `loopscope.lens` in Python.

    Example:
        loopscope lens runs/raw --prompt 'def main('
        loopscope lens runs/raw --prompt 'import numpy as' --loops 8 --out runs/raw/lens.html
        loopscope lens last.pt --prompt 'The ' --json
    """

    path: tyro.conf.Positional[Path]
    """Run folder, model folder, published last.pt, or a folder of transformers."""
    prompt: str
    """The text to look at."""
    loops: int | None = None
    """Depth, also past the trained one; the trained depth by default."""
    top: int = 3
    """Likeliest tokens to keep per token and loop."""
    threads: int | None = None
    """CPU threads; torch's choice by default."""
    json: bool = False
    """Print the whole record as JSON, and nothing else."""
    out: Path | None = None
    """Write a page: token × loop."""


def lens(arguments: Sequence[str]) -> None:
    """`loopscope lens`."""
    command = parse(LensPrompt, "lens", arguments)
    if not command.prompt:
        raise ValueError("prompt is empty; give the text to look at, such as --prompt 'def main('")
    check_counts(command, "loops", most=DEEPEST)
    check_counts(command, "top", most=100)
    check_counts(command, "threads")
    if command.out is not None and command.out.is_dir():
        raise ValueError(f"out is {command.out}, a folder; name a file, such as {command.out / 'lens.html'}")
    from loopscope.cli.lens_print import print_lens
    from loopscope.jobs import lens_prompt, use_threads
    from loopscope.results import to_json

    use_threads(command.threads)
    made = lens_prompt(command.path, command.prompt, command.loops, command.top)
    if command.json:
        print(to_json(made))
    else:
        print_lens(made)
    if command.out is not None:
        from loopscope.report import write_lens_page

        with concerning(command.out):
            page = write_lens_page(made, command.out)
        print(page, file=sys.stderr if command.json else sys.stdout)
