"""The command line. Every command's heavy imports are inside it: `--help` never waits for torch."""

import math
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from loopscope.arguments import parse, split_names, with_config
from loopscope.commands.audit import audit
from loopscope.commands.evaluate import evaluate
from loopscope.commands.generate import generate
from loopscope.commands.recipes import recipes
from loopscope.recipes import CONDITIONS, known

if TYPE_CHECKING:
    from loopscope.results import RunResult


@dataclass(frozen=True)
class Train:
    """Train one looped model in one folder.

    Example:
        loopscope train --condition dense/raw --out runs/raw --training.steps 300
        loopscope train --config run.yaml --out runs/mine --model.dim 256
        loopscope train --config run.yaml --out runs/mine --resume
    """

    out: Path
    """Folder of the run: config, metrics, checkpoints, result."""
    config: Path | None = None
    """YAML file: size, condition, and any settings below. Flags come on top."""
    size: str = "laptop"
    """Named size: what is trained, on what."""
    condition: str = "dense/rmsnorm"
    """Named condition: where the loss is, how it reads the state, what holds the scale."""
    resume: bool = False
    """Go on from the newest checkpoint in the folder, bit for bit."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class Study:
    """Train conditions × seeds side by side in one folder, then collect results.json.

    Called again, it goes on where it stopped and skips what is done.

    Example:
        loopscope study --size laptop --conditions dense/rmsnorm,dense/raw --seeds 3 --out runs/x
        loopscope report runs/x
    """

    out: Path
    """Folder of the study."""
    conditions: str = "dense/rmsnorm,dense/raw,dense/rmsnorm+penalty,terminal/rmsnorm"
    """Names, separated by commas; `all` for every named condition."""
    seeds: str = "1"
    """How many seeds (3 means 0, 1, 2), or which, separated by commas (42,101,202)."""
    config: Path | None = None
    """YAML file with settings for every run. Flags come on top."""
    size: str = "laptop"
    """Named size."""
    quiet: bool = False
    """Print nothing but errors."""


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page, and every figure as PNG and SVG, from a study or run folder.

    Example:
        loopscope report runs/x
        loopscope report runs/x --out page.html
    """

    source: tyro.conf.Positional[Path]
    """Study folder, run folder, or a results file."""
    out: Path | None = None
    """The page; report.html in the folder by default."""


@dataclass(frozen=True)
class ImportPublished:
    """Convert the paper's checkpoint (last.pt) into a model folder.

    Example:
        loopscope import-published last.pt models/dense
    """

    checkpoint: tyro.conf.Positional[Path]
    """A published last.pt. Read without executing anything in it."""
    directory: tyro.conf.Positional[Path]
    """New folder for config.yaml, model.safetensors and tokenizer.json."""


def train(arguments: Sequence[str]) -> None:
    """`loopscope train`."""
    command, config, _ = with_config(Train, "train", arguments)
    from loopscope.run import execute

    result = execute(config, command.out, resume=command.resume, quiet=command.quiet)
    _print_results([result], command.out, command.quiet)
    if result.status != "completed":
        raise SystemExit(1)


def study(arguments: Sequence[str]) -> None:
    """`loopscope study`."""
    command, config, over = with_config(Study, "study", arguments)
    names = list(CONDITIONS) if command.conditions == "all" else split_names(command.conditions)
    from loopscope.study import run_study

    results = run_study(config.size, names, _seeds(command.seeds), command.out, over, command.quiet)
    _print_results(results.runs, command.out, command.quiet)


def report(arguments: Sequence[str]) -> None:
    """`loopscope report`."""
    command = parse(Report, "report", arguments)
    from loopscope.report.page import write_report

    print(write_report(command.source, command.out))


def import_published(arguments: Sequence[str]) -> None:
    """`loopscope import-published`."""
    command = parse(ImportPublished, "import-published", arguments)
    from loopscope.data.tokenizers import WordTokenizer
    from loopscope.interop.native import save_model
    from loopscope.interop.published import read_published

    published = read_published(command.checkpoint)
    files = {}
    if published.itos:
        files["tokenizer.json"] = WordTokenizer(published.itos, published.pattern).to_text()
    sections = {"objective": dict(published.objective), "source": {"published_step": published.step}}
    save_model(published.model, command.directory, sections, files)
    print(command.directory)


COMMANDS: Mapping[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "train": (train, "train one looped model"),
    "study": (study, "train conditions × seeds side by side"),
    "audit": (audit, "which loops carry a scale that no loss sees"),
    "evaluate": (evaluate, "what every depth is worth, exits, conditions side by side"),
    "generate": (generate, "text, token by token, with early exits if asked for"),
    "recipes": (recipes, "families and sizes: parameters, FLOPs, what holds their scale"),
    "report": (report, "one self-contained HTML page from results"),
    "import-published": (import_published, "read the paper's last.pt"),
}

USAGE = """usage: loopscope COMMAND [options]

Train looped language models and see which part of their hidden state the loss cannot.

{commands}

loopscope COMMAND --help explains one, with examples. Start with:
  loopscope study --out runs/first --seeds 1
  loopscope audit runs/first
  loopscope report runs/first"""


def main() -> None:
    """Entry point: 0 when done, 1 when a run diverged, 2 for bad input, 130 when interrupted."""
    warnings.showwarning = _show_warning
    name, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if name in ("-h", "--help"):
        print(USAGE.format(commands="\n".join(f"  {key:17} {text}" for key, (_, text) in COMMANDS.items())))
        return
    if name == "--version":
        from loopscope import __version__

        print(__version__)
        return
    try:
        command, _ = COMMANDS[known("command", name, COMMANDS)]
        command(arguments)
    except ValueError as error:
        print(f"loopscope: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # `loopscope … | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except KeyboardInterrupt:
        print("loopscope: interrupted; what was saved is intact, call again to go on", file=sys.stderr)
        raise SystemExit(130) from None


def _seeds(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in split_names(text)]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and "," not in text and numbers[0] >= 1:
        return list(range(numbers[0]))
    if not numbers or min(numbers) < 0 or "," not in text:
        raise ValueError(f"seeds is {text!r}; give how many (3) or which, from 0 up (42,101,202)")
    return numbers


def _print_results(runs: Sequence["RunResult"], folder: Path, quiet: bool) -> None:
    """A table of the final evaluation; the same figures are in the folder's results."""
    if quiet:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=str(folder), title_justify="left")
    headings = ("condition", "seed", "status", "perplexity", "bits per byte", "L2 norm, first and last loop")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("condition", "status") else "right")
    for run in runs:
        first, last = (run.per_loop[0], run.per_loop[-1]) if run.per_loop else (None, None)
        table.add_row(
            run.condition,
            str(run.seed),
            run.status,
            f"{last.perplexity:.4g}" if last else "",
            # A task's symbols have no bytes.
            f"{last.bits_per_byte:.3f}" if last and not math.isnan(last.bits_per_byte) else "",
            f"{first.l2_norm:.3g}  {last.l2_norm:.3g}" if first and last else "",
        )
    Console().print(table, markup=False)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"loopscope: note: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
