"""What `--dry-run` of `train` and `study` prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loopscope.cli.labelled_lines import print_labelled

if TYPE_CHECKING:
    from loopscope.jobs import PlannedRun


def print_plans(plans: "Sequence[PlannedRun]") -> None:
    """One run in full; of several what they share, and a line each."""
    from loopscope.cli.recipes import in_short

    first = plans[0]
    training = first.config.training
    lines = [
        ("model", f"{in_short(first.parameters)} parameters, {first.config.model.loops} loops"),
        ("memory", f"{_bytes(first.memory)} at the very least: weights, gradients, moments, one batch"),
        ("machine", f"{training.device}, {training.precision}, threads: {training.threads}"),
        ("text", _text(first)),
        ("training", _length(first)),
        ("disk", _disk(plans)),
        ("loggers", ", ".join(training.log) or "none but its own metrics"),
    ]
    if len(plans) == 1:
        lines = [("run", f"{first.config.condition}, seed {training.seed}, size {first.config.size}"), *lines]
        lines += [("folder", _folder(first)), ("verdict", f"{first.verdict.why} (by its config alone)")]
    else:
        lines = [("study", f"{len(plans)} runs of size {first.config.size}, the first of them:"), *lines]
    for note in dict.fromkeys(note for plan in plans for note in plan.notes):
        lines.append(("note", note))
    print_labelled(lines)
    if len(plans) > 1:
        print()
        for plan in plans:
            name = f"{plan.config.condition}, {plan.config.training.seed}"
            print(f"{name:28} {plan.verdict.verdict:8} {in_short(plan.parameters):>6}  {_folder(plan)}")
    full = plans[0].disk_free is not None and plans[0].disk_free < _most_bytes(plans)
    then = "Make room on the disk first" if full else "Without --dry-run it starts"
    print(f"\nEverything was checked; nothing was written. {then}.")


def _folder(plan: "PlannedRun") -> str:
    if plan.finished:
        return f"{plan.folder}: is done"
    if plan.done:
        return f"{plan.folder}: goes on from step {plan.done:,}"
    return f"{plan.folder}: {'begun, without a checkpoint' if plan.folder.exists() else 'new'}"


def _text(plan: "PlannedRun") -> str:
    corpus = plan.config.data.corpus
    if plan.windows is None:
        return f"{corpus}, to be tokenized first"
    return f"{corpus}, {plan.windows:,} windows of {plan.config.model.sequence} tokens"


def _length(plan: "PlannedRun") -> str:
    training = plan.config.training
    if plan.steps is None or plan.tokens is None or plan.flops is None:
        return f"{training.epochs:g} epochs in batches of {training.batch}: steps are known once the text is tokenized"
    passes = ""
    if plan.windows:
        passes = f", {plan.steps * training.batch / plan.windows:.2g} passes"
    return f"{plan.steps:,} steps of {training.batch}: {plan.tokens:,} tokens{passes}; {plan.flops:.3g} FLOPs"


def _disk(plans: "Sequence[PlannedRun]") -> str:
    of_all, free = _most_bytes(plans), plans[0].disk_free
    said = f"up to {_bytes(of_all)} for checkpoints"
    if free is None:
        return said
    return f"{said}, {_bytes(free)} are free" + (": TOO LITTLE, make room first" if free < of_all else "")


def _most_bytes(plans: "Sequence[PlannedRun]") -> int:
    """What all checkpoints take, while one is written beside the one before it."""
    return sum(plan.checkpoint * plan.kept for plan in plans if not plan.finished) + plans[0].checkpoint


def _bytes(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
