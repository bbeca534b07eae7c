"""`loopscope evaluate exits`: what exit rules trade, thresholds that hold, realised speed. Heavy imports are inside."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from loopscope.cli.arguments import check_counts, parse, split_names
from loopscope.cli.evaluate_options import OnText, prepare_machine, print_json, text_for

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from loopscope.evaluation.exits.rules import AbstractRule
    from loopscope.evaluation.exits.speed import Flops
    from loopscope.jobs.opened import Subject
    from loopscope.jobs.text import HeldOut
    from loopscope.results import Calibration, ExitEvaluation, Speed


@dataclass(frozen=True)
class EvaluateExits(OnText):
    """What each exit rule trades on held-out text: perplexity against loops, and time against fixed depth.

    A threshold is chosen on one half of the windows and reported on the other half. Speed is measured there too, in
    turns with fixed depth. The oracle knows the labels: a bound, not a rule.

    Example:
        loopscope evaluate exits runs/raw
        loopscope evaluate exits runs/raw --rules logit-margin,direction-step --target 2
        loopscope evaluate exits runs/x --budget 2.5 --unit sequence --json
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, study folders, model folders, published last.pt files."""
    rules: str = "all"
    """Names, separated by commas; `all` for every rule that the model can run, and the oracle."""
    unit: Literal["sequence", "token", "both"] = "both"
    """What leaves: a whole sequence by its tokens' mean score, or each token alone."""
    target: float = 1.0
    """Perplexity that may be lost against full depth, in percent."""
    budget: float | None = None
    """Mean loops to come down to, as a second target."""
    speed_batch: int = 32
    """Sequences in the batch that speed is measured on."""
    pairs: int = 5
    """Pairs of fixed depth and early exit that are timed; 0 measures no speed."""
    keep: bool = True
    """Keep them in evaluation.json in each run's folder, where `loopscope report` finds them."""


def evaluate_exits(arguments: Sequence[str]) -> None:
    """`loopscope evaluate exits`."""
    command = parse(EvaluateExits, "evaluate exits", arguments)
    _check(command)
    device = prepare_machine(command)
    from loopscope.cli.evaluate_exits_print import print_exits
    from loopscope.evaluation.exits.rules import build_rule
    from loopscope.jobs.evaluate import evaluation_of, find_runs, keep_evaluation
    from loopscope.jobs.opened import open_subject

    if command.rules != "all":
        for name in _names(command.rules):
            rule = build_rule(name)
            if command.unit not in ("both", *rule.units):
                raise ValueError(
                    f"rule {name!r} decides per {' or '.join(rule.units)} only: its score takes in a sequence's later "
                    f"tokens. Set --unit {rule.units[0]}, or leave the rule out"
                )
    found = []
    for path in [run for given in command.paths for run in find_runs(given)]:
        subject = open_subject(path)
        if command.budget is not None:
            from loopscope.evaluation.exits.calibration import check_budget

            check_budget(command.budget, subject.model.loops)
        subject.model.to(device)
        held = text_for(subject, command)
        exits = _exits(command, subject, held, device)
        evaluation = replace(evaluation_of(subject, held, subject.model.loops), exits=exits)
        kept = keep_evaluation(subject, evaluation) if command.keep else None
        found.append(evaluation)
        if not command.json:
            print_exits(evaluation, kept)
    if command.json:
        print_json(found)


def _check(command: EvaluateExits) -> None:
    if not command.paths:
        raise ValueError("give a path to evaluate: a run, a study, a model folder, a last.pt")
    check_counts(command, "speed_batch")
    if command.pairs < 0:
        raise ValueError(
            f"pairs is {command.pairs}; give how many pairs to time, from 1 up, or 0 to measure no speed"
        )
    if not 0 <= command.target < float("inf"):
        raise ValueError(
            f"target is {command.target}; give the perplexity that may be lost, in percent, from 0 up (1 is usual)"
        )
    if command.budget is not None and not command.budget >= 1:
        raise ValueError(f"budget is {command.budget}; mean loops go from 1 up to the trained depth")


def _exits(
    command: EvaluateExits, subject: "Subject", held: "HeldOut", device: "torch.device"
) -> "ExitEvaluation":
    from loopscope.evaluation.exits.calibration import calibrate_loops, calibrate_perplexity
    from loopscope.evaluation.exits.curves import exit_curve, fixed_points
    from loopscope.evaluation.exits.record import record_exits
    from loopscope.results import ExitEvaluation
    from loopscope.results.evaluations import Unit

    rules = _rules(command.rules, subject, held, device)
    record = record_exits(
        subject.model, _on(device, held.batches(command.batch)), rules, held.bytes_per_token
    )
    units: tuple[Unit, ...] = ("sequence", "token") if command.unit == "both" else (command.unit,)
    curves, calibrations = [], []
    for unit in units:
        for rule in [rule for rule in rules if unit in rule.units]:
            curves.append(exit_curve(record, rule, unit))
            calibrations.append(calibrate_perplexity(record, rule, unit, command.target / 100))
            if command.budget is not None:
                calibrations.append(calibrate_loops(record, rule, unit, command.budget))
    return ExitEvaluation(
        fixed=fixed_points(record),
        curves=tuple(curves),
        calibrations=tuple(calibrations),
        speeds=tuple(_speeds(command, subject, held, rules, calibrations, device)),
    )


def _rules(names: str, subject: "Subject", held: "HeldOut", device: "torch.device") -> "list[AbstractRule]":
    """Those named, or all that the model can run; fixed depth is in every table anyway."""
    from loopscope.evaluation.exits.rules import AbstractExitRule, build_rule, rule_names

    if names != "all":
        return [build_rule(name) for name in _names(names)]
    able = []
    for name in rule_names():
        rule = build_rule(name)
        if name == "fixed":
            continue
        if isinstance(rule, AbstractExitRule):
            try:
                rule.check_model(subject.model, held.input_ids[:1].to(device))
            except ValueError as reason:
                if name != "gate":  # most models have none
                    warnings.warn(f"{subject.name}: {reason}", stacklevel=2)
                continue
        able.append(rule)
    return able


def _speeds(
    command: EvaluateExits,
    subject: "Subject",
    held: "HeldOut",
    rules: "Sequence[AbstractRule]",
    calibrations: "Sequence[Calibration]",
    device: "torch.device",
) -> "list[Speed]":
    """Of every calibrated threshold per sequence, on windows of the half that it was not chosen on."""
    from loopscope.evaluation.exits.calibration import split
    from loopscope.evaluation.exits.rules import AbstractExitRule
    from loopscope.evaluation.exits.speed import measure_speed

    if not command.pairs:
        return []
    _, tested = split(len(held))
    ids = held.input_ids[tested[: command.speed_batch]].to(device)
    running = {rule.name: rule for rule in rules if isinstance(rule, AbstractExitRule)}
    return [
        measure_speed(
            subject.model,
            ids,
            running[each.rule],
            each.threshold,
            command.pairs,
            _flops(subject, ids.shape[1]),
        )
        for each in calibrations
        if each.unit == "sequence" and each.threshold is not None and each.rule in running
    ]


def _flops(subject: "Subject", sequence: int) -> "Flops | None":
    """Counts FLOPs of a model of Loopscope's own; nothing counts a stranger's."""
    from loopscope.model.looped import LoopedTransformer
    from loopscope.plan.parameters import forward_flops

    model = subject.model
    if not isinstance(model, LoopedTransformer):
        return None
    config = model.config
    return lambda loops, exits: float(forward_flops(config, sequence, loops, exits))


def _on(
    device: "torch.device", batches: "Iterator[tuple[Tensor, Tensor]]"
) -> "Iterator[tuple[Tensor, Tensor]]":
    """Batches where the model is."""
    for ids, labels in batches:
        yield ids.to(device), labels.to(device)


def _names(text: str) -> list[str]:
    names = split_names(text)
    if not names:
        raise ValueError("rules is empty; give names separated by commas, or all")
    return names
