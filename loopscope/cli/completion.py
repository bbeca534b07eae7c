"""`loopscope completion SHELL`: a script with which bash, zsh or fish completes commands, options and their choices.

The script is whole: it starts no Python at a press of TAB. It is made of the tables that parse the commands.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import tyro

from loopscope.cli.arguments import parse, settings_of_a_run
from loopscope.cli.options import CommandOption, options_of
from loopscope.config.recipes import CONDITIONS, NAMED, SIZES

NAMES: Mapping[str, Sequence[str]] = {
    "size": list(SIZES),
    "condition": [*CONDITIONS, *NAMED],
    "conditions": ["all", *CONDITIONS, *NAMED],
    "log": ["tensorboard", "trackio", "wandb", "none"],
    "family": list(NAMED),
}
"""Words that an option takes beside those that its type says."""


@dataclass(frozen=True)
class Completion:
    """Print a script for a shell that completes commands, options, and their choices.

    Example:
        loopscope completion bash
        loopscope completion zsh
        loopscope completion fish
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """One of bash, zsh, fish. bash: keep it in a file that ~/.bashrc sources. zsh: in a file _loopscope, in a folder of
    fpath. fish: in ~/.config/fish/completions/loopscope.fish."""


def completion(arguments: Sequence[str]) -> None:
    """`loopscope completion`."""
    command = parse(Completion, "completion", arguments)
    print({"bash": bash_script, "zsh": zsh_script, "fish": fish_script}[command.shell]())


def options_by_command() -> dict[str, tuple[CommandOption, ...]]:
    """Return the options of every command and of every part of `evaluate`, by what is typed: `evaluate depth`."""
    from loopscope.cli import COMMANDS
    from loopscope.cli.evaluate import EVALUATIONS

    places = {
        name: (command.module, command.options) for name, command in COMMANDS.items() if command.options
    }
    places |= {f"evaluate {part}": (module, kind) for part, (module, _, kind) in EVALUATIONS.items()}
    found: dict[str, tuple[CommandOption, ...]] = {}
    for name, (module, kind) in places.items():
        own = options_of(getattr(import_module(f"loopscope.cli.{module}"), kind))
        found[name] = (*own, *(settings_of_a_run().options if name in ("train", "study") else ()))
    return found


def bash_script() -> str:
    """Return the script for bash; zsh reads it too, through its own emulation."""
    found = options_by_command()
    flags, choices = [], []
    for name, options in found.items():
        named = [option for option in options if not option.positional]
        words = [option.flag for option in named] + [option.off for option in named if option.switch]
        flags.append(
            f"    {shlex.quote(name)}) flags={shlex.quote(' '.join([*words, '--help', '--help-all']))} ;;"
        )
    of_value: dict[str, str] = {}
    for options in found.values():
        for option in options:
            if known := _words(option):
                of_value.setdefault(
                    option.flag if not option.positional else f"{option.shown} ", " ".join(known)
                )
    for flag, offered in of_value.items():
        if flag.startswith("--"):
            choices.append(f"    {flag}) words={shlex.quote(offered)} ;;")
    switches = sorted({o.flag for options in found.values() for o in options if o.switch})
    parts = " ".join(name.removeprefix("evaluate ") for name in found if name.startswith("evaluate "))
    return _BASH.format(
        commands=" ".join(_commands()),
        parts=parts,
        flags="\n".join(flags),
        choices="\n".join(choices),
        switches="|".join(switches),
        shells=of_value.get("SHELL ", "bash zsh fish"),
    )


def zsh_script() -> str:
    """Return the script for zsh."""
    return f"#compdef loopscope\nautoload -U +X bashcompinit && bashcompinit\n{bash_script()}"


def fish_script() -> str:
    """Return the script for fish, with what every option means."""
    lines = ["# loopscope completion fish", "complete -c loopscope -e"]
    top = "__fish_use_subcommand"
    lines += [
        f"complete -c loopscope -n {top} -f -a {name} -d {_quoted(text)}"
        for name, text in _commands().items()
    ]
    for name, options in options_by_command().items():
        command, _, part = name.partition(" ")
        seen = f"__fish_seen_subcommand_from {command}"
        if part:
            lines.append(f"complete -c loopscope -n '{seen}' -f -a {part}")
            seen += f"; and __fish_seen_subcommand_from {part}"
        for option in options:
            said = _quoted(option.words.partition(". ")[0][:80])
            takes = "" if option.switch else " -r"
            words = _words(option)
            values = f" -f -a {_quoted(' '.join(words))}" if words else ""
            which = "" if option.positional else f" -l {option.flag[2:]}{takes}"
            if which or values:
                lines.append(f"complete -c loopscope -n '{seen}'{which}{values} -d {said}")
    return "\n".join(lines)


def _commands() -> dict[str, str]:
    from loopscope.cli import COMMANDS

    return {name: command.text for name, command in COMMANDS.items()}


def _words(option: CommandOption) -> Sequence[str]:
    """The words that an option takes, as far as they are known."""
    return option.choices or NAMES.get(option.name, ())


def _quoted(text: str) -> str:
    """A text in single quotes, as fish reads them."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_BASH = """# loopscope completion bash
_loopscope() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" command="${{COMP_WORDS[1]}}"
  local flags='' words=''
  COMPREPLY=()
  if [[ $current == '=' ]]; then current=''; elif [[ $before == '=' ]]; then before="${{COMP_WORDS[COMP_CWORD-2]}}"; fi
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W '{commands} --help --version' -- "$current")); return
  fi
  if [[ $command == completion ]]; then COMPREPLY=($(compgen -W '{shells}' -- "$current")); return; fi
  if [[ $command == evaluate ]]; then
    if [[ $COMP_CWORD -eq 2 ]]; then COMPREPLY=($(compgen -W '{parts} --help' -- "$current")); return; fi
    command="evaluate ${{COMP_WORDS[2]}}"
  fi
  case "$command" in
{flags}
  esac
  if [[ $current == -* ]]; then COMPREPLY=($(compgen -W "$flags" -- "$current")); return; fi
  case "$before" in
    {switches}) ;;
{choices}
  esac
  if [[ -n $words ]]; then
    # Names between commas: what is typed last is completed, the others stay.
    local kept=''
    if [[ $current == *,* ]]; then kept="${{current%,*}},"; fi
    COMPREPLY=($(compgen -P "$kept" -W "$words" -- "${{current##*,}}"))
    [[ $before == --conditions || $before == --log ]] && compopt -o nospace 2>/dev/null
    return 0
  fi
  COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o filenames -o bashdefault -F _loopscope loopscope"""
