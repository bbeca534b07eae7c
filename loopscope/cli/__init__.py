"""The command line: one file per command, and one for what it prints. `loopscope COMMAND --help` never waits for torch.

A new command is a file here, with a function that takes the words behind its name, and a line in `COMMANDS`.
"""

import os
import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

from loopscope.cli.processes import let_the_first_speak, refuse_company, speaks

__all__ = ["COMMANDS", "main"]


class Command(NamedTuple):
    """Where a command is, what it does in a few words, and the class of its options, where it has no parts."""

    module: str
    function: str
    text: str
    options: str = ""


COMMANDS: Mapping[str, Command] = {
    "train": Command("train", "train", "train one looped model", "Train"),
    "study": Command("study", "study", "train conditions × seeds side by side", "Study"),
    "audit": Command("audit", "audit", "which loops carry a scale that no loss sees", "Audit"),
    "evaluate": Command("evaluate", "evaluate", "what every depth is worth, exits, conditions side by side"),
    "generate": Command(
        "generate", "generate", "text, token by token, with early exits if asked for", "Generate"
    ),
    "lens": Command(
        "lens", "lens", "what each exit would say, token by token and loop by loop", "LensPrompt"
    ),
    "recipes": Command(
        "recipes", "recipes", "families and sizes: parameters, FLOPs, what holds the scale", "Recipes"
    ),
    "plan": Command(
        "plan", "plan_command", "memory, time and cost of a run on GPUs that are not here", "PlanCommand"
    ),
    "list": Command(
        "list_runs", "list_runs", "runs and studies in a folder, and how far each is", "ListRuns"
    ),
    "report": Command("report", "report", "one self-contained HTML page from results", "Report"),
    "doctor": Command(
        "doctor", "doctor", "this machine: what it has, how fast it is, what is slow", "Doctor"
    ),
    "completion": Command(
        "completion", "completion", "a script that completes words in your shell", "Completion"
    ),
    "retrofit": Command(
        "retrofit", "retrofit", "a looped model of a Llama, Qwen3 or GPT-2 model", "Retrofit"
    ),
    "import-published": Command(
        "import_published", "import_published", "read the paper's last.pt", "ImportPublished"
    ),
    "export": Command("export", "export", "a run as a model of transformers, with its card", "Export"),
}
"""Commands by name, in the order in which help lists them."""

TRUST = "--trust-remote-code"
"""Wherever it stands: for every command that opens a model."""

USAGE = """usage: loopscope COMMAND [options]

Train looped language models and see which part of their hidden state the loss
cannot.

{commands}

loopscope COMMAND --help explains one, with examples; --help-all lists every
setting. Start with:
  loopscope study --out runs/first --seeds 1
  loopscope audit runs/first
  loopscope report runs/first

loopscope --import MODULE COMMAND … imports a module of your own first, for runs
that name its classes (so does LOOPSCOPE_IMPORT=MODULE in the environment).
loopscope COMMAND … --trust-remote-code runs the code that a model folder of
transformers brings."""


def main() -> None:
    """Entry point. Exit status: 0 when done, 1 when a run (or every run of a study) failed or diverged, 2 for bad input
    or what the system refuses (a full disk), 130 or 143 when interrupted or terminated, 99 when a scheduler cut a
    training off (`interruption`).
    """
    warnings.showwarning = _silent if "--quiet" in sys.argv or not speaks() else _show_warning
    modules, words = _modules(sys.argv[1:])
    trusted = TRUST in words
    words = [word for word in words if word != TRUST]
    name, arguments = (words[0], words[1:]) if words else ("--help", [])
    if name == "help" and arguments:  # `help train`
        name, arguments = arguments[0], [*arguments[1:], "--help"]
    if name in ("help", "-h", "--help", "--help-all"):
        commands = "\n".join(f"  {key:17} {command.text}" for key, command in COMMANDS.items())
        print(USAGE.format(commands=commands))
        return
    if name == "--version":
        from loopscope import __version__

        print(__version__)
        return
    # Here, so that the list of commands waits for no settings and no records.
    from loopscope.cli.interruption import hearing_schedulers, interrupted, status_of
    from loopscope.config.known_names import known
    from loopscope.config.nested import one_line
    from loopscope.results.class_names import vouch_for
    from loopscope.results.faults import in_words

    try:
        command = COMMANDS[known("command", name, COMMANDS)]
        refuse_company(name)
        for module in modules:
            vouch_for(module)
        if trusted:
            from loopscope.jobs import allow_remote_code

            allow_remote_code()
        run = getattr(import_module(f"loopscope.cli.{command.module}"), command.function)
        with hearing_schedulers():
            run(arguments)
    except ValueError as error:
        _say(one_line(str(error)))
        raise SystemExit(2) from None
    except BrokenPipeError:  # `loopscope … | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        _say(in_words(error))
        raise SystemExit(2) from None
    except (MemoryError, RuntimeError) as error:
        if not _ran_out_of_memory(error):
            raise
        _say(
            f"out of memory ({one_line(str(error))[:200]}); take fewer or shorter windows (--sequences, "
            "--length, --batch), or load a model of others with --dtype bfloat16"
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        _say(interrupted(stop, name, sys.argv[1:]))
        raise SystemExit(status_of(stop, name)) from None


def _say(text: str) -> None:
    """Say why a command ends; of several processes the first does."""
    if speaks():
        print(f"loopscope: {text}", file=sys.stderr)
    else:
        let_the_first_speak()


def _ran_out_of_memory(error: BaseException) -> bool:
    """Whether Python or torch, on any device, could not have the memory that it asked for."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or "can't allocate memory" in said or "out of memory" in said


def _modules(words: list[str]) -> tuple[list[str], list[str]]:
    """Modules that the user asks to import, and the words that are left."""
    modules = [name for name in os.environ.get("LOOPSCOPE_IMPORT", "").split(",") if name]
    left = list(words)
    while "--import" in left:
        place = left.index("--import")
        if place + 1 == len(left):
            break  # the command will say that it knows no such option
        modules += left[place + 1].split(",")
        del left[place : place + 2]
    return modules, left


def _silent(*_: Any, **__: Any) -> None:
    """Nothing but errors, as --quiet says."""


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    from loopscope.config.nested import one_line

    print(f"loopscope: note: {one_line(str(message))}", file=sys.stderr)
