"""The command line. Every command's heavy imports are inside it: `--help` never waits for torch."""

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from loopscope.arguments import parse, with_config
from loopscope.recipes import CONDITIONS, known
from loopscope.recipes_command import recipes

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
class Audit:
    """Which loops carry a scale that no loss sees, and what would close it.

    A run and a published checkpoint are judged under their own objective; without one the plausible ones are
    (terminal, dense). Tokens are the run's validation tokens, else the embedded corpus in the model's own tokens.

    Example:
        loopscope audit runs/raw
        loopscope audit runs/demo --out runs/demo/audit.html
        loopscope audit last.pt --objective dense+norm_penalty=0.01 --data 'text/*.txt' --json
        loopscope audit --config run.yaml
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, study folders, model folders, published last.pt files."""
    config: Path | None = None
    """YAML file of a run: read its verdict before any training, instead of measuring."""
    objective: str | None = None
    """What it was trained on: dense, terminal, exit-weighted, with +norm_penalty=W, or a YAML file."""
    data: str | None = None
    """Text files (a path or a glob), stdlib, a Hugging Face dataset, or tokens.safetensors with input_ids."""
    sequences: int = 8
    """Windows to measure on."""
    length: int | None = None
    """Tokens of a window; the trained length by default, at most 256."""
    threads: int | None = None
    """CPU threads; torch's choice by default."""
    json: bool = False
    """Print the whole audit as JSON, and nothing else."""
    out: Path | None = None
    """Write a page with the verdicts and figures."""
    keep: bool = True
    """Keep audit.json in each run's folder, where `loopscope report` finds it."""
    strict: bool = False
    """Exit with status 1 where a verdict is blind: for CI."""


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
    names = list(CONDITIONS) if command.conditions == "all" else _names(command.conditions)
    from loopscope.study import run_study

    results = run_study(config.size, names, _seeds(command.seeds), command.out, over, command.quiet)
    _print_results(results.runs, command.out, command.quiet)


def report(arguments: Sequence[str]) -> None:
    """`loopscope report`."""
    command = parse(Report, "report", arguments)
    from loopscope.report.page import write_report

    print(write_report(command.source, command.out))


def audit(arguments: Sequence[str]) -> None:
    """`loopscope audit`."""
    command = parse(Audit, "audit", arguments)
    if (command.config is None) == (not command.paths):
        raise ValueError(
            "give a path to measure (a run, a study, a model folder, a last.pt) or --config run.yaml to read, "
            "and not both"
        )
    verdicts = _static_audit(command) if command.config else _measured_audit(command)
    if command.strict and "blind" in verdicts:
        raise SystemExit(1)


def _static_audit(command: Audit) -> list[str]:
    from loopscope.audit_text import print_static
    from loopscope.config import read_yaml
    from loopscope.recipes import recipe
    from loopscope.results import to_json
    from loopscope.static_audit import static_audit

    assert command.config is not None
    values = read_yaml(command.config)
    size, condition = values.pop("size", "laptop"), values.pop("condition", "dense/rmsnorm")
    found = static_audit(recipe(size, condition, values))
    if command.json:
        print(to_json(found))
    else:
        print_static(found)
    return [found.verdict]


def _measured_audit(command: Audit) -> list[str]:
    for name in ("sequences", "length", "threads"):
        value = getattr(command, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be a whole number from 1 up")
    import torch

    from loopscope.audit_command import audit_subject, keep_audit, parse_objective
    from loopscope.audit_text import print_audits
    from loopscope.results import audit_values, to_json
    from loopscope.subject import find_subjects, open_subject

    if command.threads:
        torch.set_num_threads(command.threads)
    if command.objective is not None:
        parse_objective(command.objective)
    subjects = [open_subject(path) for given in command.paths for path in find_subjects(given)]
    audits = []
    for subject in subjects:
        audited = audit_subject(subject, command.objective, command.data, command.sequences, command.length)
        audits.append(audited)
        if not command.json:
            print_audits([audited])
        if command.keep:
            keep_audit(subject.path, to_json(audit_values(audited)))
    if command.json:
        values = [audit_values(audited) for audited in audits]
        print(to_json(values[0] if len(values) == 1 else {"models": values}))
    if command.out:
        from loopscope.report.audit_page import write_audit_page

        page = write_audit_page(audits, command.out)
        print(page, file=sys.stderr if command.json else sys.stdout)
    return [audited.report.verdict for audited in audits]


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


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _seeds(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in _names(text)]
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
            f"{last.bits_per_byte:.3f}" if last else "",
            f"{first.l2_norm:.3g}  {last.l2_norm:.3g}" if first and last else "",
        )
    Console().print(table, markup=False)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"loopscope: note: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
