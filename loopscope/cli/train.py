"""`loopscope train`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loopscope.cli.arguments import with_config
from loopscope.cli.processes import let_the_first_speak, speaks
from loopscope.cli.train_print import print_next, print_results
from loopscope.config.sizes import DEFAULT_SIZE
from loopscope.results.layout import CONFIG


@dataclass(frozen=True)
class Train:
    """Train one looped model in one folder.

    Settings of a run are flags by their section and name, and keys of a YAML file alike.

    Example:
        loopscope train --condition dense/raw --out runs/raw --training.steps 300
        loopscope train --out runs/raw --resume
        loopscope train --out runs/raw --training.steps 900 --resume
        loopscope train --data.files 'text/*.txt' --data.tokenizer.kind bpe --out runs/own
        torchrun --nproc-per-node 2 -m loopscope train --condition dense/raw --out runs/two
        loopscope train --config run.yaml --out runs/wide --model.dim 256
    """

    out: Path
    """Folder of the run: config, metrics, checkpoints, result."""
    config: Path | None = None
    """YAML file: size, condition, and any settings below. Flags come on top."""
    size: str = DEFAULT_SIZE
    """Named size, of those listed below: what is trained, on what."""
    condition: str = "dense/rmsnorm"
    """Named condition, of those listed below: where the loss is, how it reads the state, what holds the scale."""
    resume: bool = False
    """Go on from the newest checkpoint in the folder, bit for bit, with the folder's own settings; with more
    training.steps, to a later end."""
    log: str | None = None
    """Trackers that have its curves too, separated by commas: tensorboard, trackio, wandb (extra `log`); none turns
    them off."""
    dry_run: bool = False
    """Check everything and say what would be made: model, memory, tokens, steps, verdict by its config. Nothing is
    written."""
    quiet: bool = False
    """Print nothing but errors."""


def train(arguments: Sequence[str]) -> None:
    """`loopscope train`."""
    command, config, _ = with_config(Train, "train", arguments)
    command = command if speaks() else replace(command, quiet=True)
    if command.resume and not command.quiet and (command.out / CONFIG).is_file():
        kept = f"size {config.size}, condition {config.condition}"
        print(
            f"{command.out} goes on with its own {CONFIG} ({kept}) where nothing else is named",
            file=sys.stderr,
        )
    if command.dry_run and not speaks():
        return
    if command.dry_run:
        from loopscope.cli.planned_print import print_plans
        from loopscope.jobs import planned_run

        print_plans([planned_run(config, command.out, command.resume)])
        return
    from loopscope.jobs import execute

    result = execute(config, command.out, resume=command.resume, quiet=command.quiet)
    print_results([result], command.out, command.quiet)
    print_next([result], command.out, command.quiet)
    if result.status != "completed":
        let_the_first_speak()
        raise SystemExit(1)
