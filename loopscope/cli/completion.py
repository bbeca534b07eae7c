"""`loopscope completion SHELL`: a script with which bash, zsh or fish completes commands, options and their choices.

The script is whole: it starts no Python at a press of TAB. It is made of the tables that parse the commands.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import tyro

from loopscope.cli import TRUST
from loopscope.cli.arguments import parse, settings_of_a_run
from loopscope.cli.options import CommandOption, options_of
from loopscope.config.baselines import BASELINES
from loopscope.config.recipes import CONDITIONS, NAMED
from loopscope.config.sizes import SIZES

_OF_BASELINES = [f"{baseline}:{condition}" for baseline in BASELINES for condition in CONDITIONS]
NAMES: Mapping[str, Sequence[str]] = {
    "size": list(SIZES),
    "condition": [*CONDITIONS, *NAMED, *_OF_BASELINES],
    "conditions": ["all", *CONDITIONS, *NAMED, *_OF_BASELINES],
    "log": ["tensorboard", "trackio", "wandb", "none"],
    "family": list(NAMED),
    "device": ["auto", "cpu", "cuda", "mps"],
    "objective": ["terminal", "dense", "exit-weighted"],
    "readout": ["rmsnorm", "layernorm", "raw", "final-only", "alpha"],
    "carry": ["rmsnorm", "layernorm", "readout-norm", "damping", "decay"],
    "injection": ["add", "gated", "concat", "write"],
    "cache_kind": ["dynamic", "static", "offloaded", "quantized"],
    "rules": [
        *("logit-margin", "max-probability", "entropy-confidence", "kl", "shortlist-margin"),
        *("hidden-step", "direction-step", "gate", "fixed", "oracle"),
    ],
    "exit_rule": [
        *("logit-margin", "max-probability", "entropy-confidence", "kl", "shortlist-margin"),
        *("hidden-step", "direction-step", "gate", "fixed"),
    ],
}
"""Words that an option takes beside those that its type says."""

LISTS = ("conditions", "log", "rules", "carry")
"""Options whose words stand between commas."""

BEFORE = ("--help", "--version", "--import", TRUST)
"""What may stand before a command, or in its place."""


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
    """Return the script for bash."""
    return _filled(_BASH)


def zsh_script() -> str:
    """Return the script for zsh: of itself, whether it is found in `fpath` or sourced."""
    return _filled(_ZSH)


def _filled(script: str) -> str:
    """A script with the tables in it."""
    found = options_by_command()
    flags, choices = [], []
    for name, options in found.items():
        named = [option for option in options if not option.positional]
        words = [option.flag for option in named] + [option.off for option in named if option.switch]
        words += ["--help", "--help-all", TRUST]
        flags.append(f"    {shlex.quote(name)}) flags={shlex.quote(' '.join(words))} ;;")
    of_value: dict[str, str] = {}
    for options in found.values():
        for option in options:
            if known := _words(option):
                of_value.setdefault(option.shown if option.positional else option.flag, " ".join(known))
    for flag, offered in of_value.items():
        if flag.startswith("--"):
            choices.append(f"    {flag}) offered={shlex.quote(offered)} ;;")
    return script.format(
        commands=" ".join([*_commands(), "help", *BEFORE]),
        parts=" ".join(name.removeprefix("evaluate ") for name in found if name.startswith("evaluate ")),
        flags="\n".join(flags),
        choices="\n".join(choices),
        switches="|".join(sorted({o.flag for options in found.values() for o in options if o.switch})),
        lists="|".join(f"--{name}" for name in LISTS),
        shells=of_value["SHELL"],
        trust=TRUST,
    )


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
  local line="${{COMP_LINE:0:COMP_POINT}}" current before command='' flags='' offered='' kept='' word skip=''
  local -a typed named=()
  COMPREPLY=()
  read -ra typed <<< "$line"
  current="${{line##*[[:space:]]}}"
  if [[ -n $current ]]; then unset "typed[${{#typed[@]}}-1]"; fi
  before="${{typed[${{#typed[@]}}-1]}}"
  if [[ $current == --*=* ]]; then before="${{current%%=*}}"; current="${{current#*=}}"; fi
  # The command is the first word that every command does not take.
  for word in "${{typed[@]:1}}"; do
    if [[ -n $skip ]]; then skip=''; continue; fi
    case "$word" in
      --import) skip=yes ;;
      {trust}) ;;
      help) [[ ${{#named[@]}} -eq 0 ]] || named+=("$word") ;;
      *) named+=("$word") ;;
    esac
  done
  [[ $before == --import ]] && return
  command="${{named[0]}}"
  if [[ -z $command ]]; then COMPREPLY=($(compgen -W '{commands}' -- "$current")); return; fi
  if [[ $command == completion ]]; then COMPREPLY=($(compgen -W '{shells}' -- "$current")); return; fi
  if [[ $command == evaluate ]]; then
    if [[ ${{#named[@]}} -eq 1 ]]; then COMPREPLY=($(compgen -W '{parts} --help' -- "$current")); return; fi
    command="evaluate ${{named[1]}}"
  fi
  case "$command" in
{flags}
  esac
  if [[ $current == -* ]]; then COMPREPLY=($(compgen -W "$flags" -- "$current")); return; fi
  case "$before" in
    {switches}) ;;
{choices}
  esac
  if [[ -n $offered ]]; then
    # Names between commas: what is typed last is completed, the others stay.
    if [[ $current == *,* ]]; then kept="${{current%,*}},"; fi
    COMPREPLY=($(compgen -P "$kept" -W "$offered" -- "${{current##*,}}"))
    # bash takes what is behind a colon for a word of its own.
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
      kept="${{current%"${{current##*:}}"}}"
      COMPREPLY=("${{COMPREPLY[@]#"$kept"}}")
    fi
    case "$before" in {lists}) compopt -o nospace 2>/dev/null ;; esac
    return 0
  fi
  compopt -o filenames 2>/dev/null
  local IFS=$'\\n'
  COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o bashdefault -F _loopscope loopscope"""


_ZSH = """#compdef loopscope
_loopscope() {{
  local current="${{words[CURRENT]}}" before="${{words[CURRENT-1]}}" command='' flags='' offered='' word skip=''
  local -a named
  # The command is the first word that every command does not take.
  for word in "${{(@)words[2,CURRENT-1]}}"; do
    if [[ -n $skip ]]; then skip=''; continue; fi
    case "$word" in
      --import) skip=yes ;;
      {trust}) ;;
      help) (( $#named )) && named+=("$word") ;;
      *) named+=("$word") ;;
    esac
  done
  [[ $before == --import ]] && return 1
  command="${{named[1]}}"
  if [[ -z $command ]]; then compadd -- ${{=:-{commands}}}; return; fi
  if [[ $command == completion ]]; then compadd -- ${{=:-{shells}}}; return; fi
  if [[ $command == evaluate ]]; then
    if (( $#named == 1 )); then compadd -- ${{=:-{parts} --help}}; return; fi
    command="evaluate ${{named[2]}}"
  fi
  case "$command" in
{flags}
  esac
  if [[ $current == --*=* ]]; then
    before="${{current%%=*}}"
    compset -P '--*='
  elif [[ $current == -* ]]; then
    compadd -- ${{=flags}}
    return
  fi
  case "$before" in
    {switches}) ;;
{choices}
  esac
  if [[ -n $offered ]]; then
    case "$before" in
      {lists}) compset -P '*,'; compadd -S '' -- ${{=offered}} ;;
      *) compadd -- ${{=offered}} ;;
    esac
    return
  fi
  _files
}}
if (( $+compstate )); then _loopscope "$@"; else compdef _loopscope loopscope; fi"""
