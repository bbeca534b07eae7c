"""What exit rules trade on a model: curves, thresholds that hold, realised speed. From a path to its evaluation."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from loopscope.evaluation.exits.calibration import calibrate_loops, calibrate_perplexity, check_budget, split
from loopscope.evaluation.exits.curves import exit_curve, fixed_points
from loopscope.evaluation.exits.record import record_exits
from loopscope.evaluation.exits.rules import AbstractExitRule, AbstractRule, build_rule, rule_names
from loopscope.evaluation.exits.speed import Flops, measure_speed
from loopscope.jobs.evaluate import evaluation_of, keep_evaluation
from loopscope.jobs.machine import device_named, placed
from loopscope.jobs.opened import OpenedModel, open_model
from loopscope.jobs.text import TextWindows, held_out
from loopscope.model.looped import LoopedTransformer
from loopscope.plan.parameters import forward_flops
from loopscope.results import Calibration, ExitEvaluation, ModelEvaluation, Speed
from loopscope.results.evaluations import Unit


@dataclass(frozen=True)
class ExitSettings:
    """Which rules are measured, for what, and how speed is timed.

    Raises:
        ValueError: a rule that is not known or that cannot decide per unit, or a number that is out of range.
    """

    rules: tuple[str, ...] | None = None  # None: all that the model can run, and the oracle
    units: tuple[Unit, ...] = ("sequence", "token")  # what leaves: a whole sequence, or each token alone
    target: float = 1.0  # perplexity that may be lost against full depth, in percent
    budget: float | None = None  # mean loops to come down to, as a second target
    speed_batch: int = 32  # sequences in the batch that speed is measured on
    pairs: int = 5  # pairs of fixed depth and early exit that are timed; 0 measures no speed

    def __post_init__(self) -> None:
        if self.pairs < 0:
            raise ValueError(
                f"pairs is {self.pairs}; give how many pairs to time, from 1 up, or 0 to measure no speed"
            )
        if not 0 <= self.target < float("inf"):
            raise ValueError(
                f"target is {self.target}; give the perplexity that may be lost, in percent, from 0 up (1 is usual)"
            )
        if self.budget is not None and not self.budget >= 1:
            raise ValueError(f"budget is {self.budget}; mean loops go from 1 up to the trained depth")
        for rule in map(build_rule, self.rules or ()):
            if not set(self.units) & set(rule.units):
                raise ValueError(
                    f"rule {rule.name!r} decides per {' or '.join(rule.units)} only: its score takes in a sequence's "
                    f"later tokens. Set --unit {rule.units[0]}, or leave the rule out"
                )

    def in_words(self, device: torch.device) -> dict[str, str]:
        """Return what is asked for on a device, as a record keeps it."""
        given = {name: str(value) for name, value in vars(self).items() if name not in ("rules", "units")}
        names = {"rules": ",".join(self.rules or ("all",)), "units": ",".join(self.units)}
        return {**names, **given, "device": str(device), "threads": str(torch.get_num_threads())}


def measure_exits(
    path: str | Path,
    settings: ExitSettings | None = None,
    *,
    data: str | None = None,
    windows: int | None = None,
    length: int | None = None,
    batch: int = 16,
    device: str = "cpu",
    keep: bool = True,
    keep_in: str | Path | None = None,
    loops: int | None = None,
    if_known: Callable[[], None] | None = None,
) -> ModelEvaluation:
    """Measure exit rules on one model: `.exits` of its evaluation.

    Args:
        data: as `held_out` takes it, with `windows` and `length`.
        batch: windows at a time: memory grows with it, results do not change.
        device: auto, cpu, cuda, mps.
        keep: write the evaluation beside the model.
        keep_in: the folder in which it is kept instead.
        loops: the depth that exits are measured up to; the trained one by default. Of another, nothing is kept but in
            `keep_in`.
        if_known: called in place of measuring, where that was done before: of the same checkpoint, on the same text,
            with the same settings. None measures anew.

    Raises:
        ValueError: no model there, text that cannot be read, or settings that do not fit the model.
    """
    settings = settings or ExitSettings()
    where = device_named(device)
    opened = open_model(path, keep_in, loops)
    if settings.budget is not None:
        check_budget(settings.budget, opened.model.loops)
    where = placed(opened.model, where)
    text = held_out(opened, data, windows, length)
    known, asked = evaluation_of(opened, text, opened.model.loops), settings.in_words(where)
    if if_known and known.weights and known.exits and known.exits.settings == asked:
        if_known()
        return known
    exits = replace(_exits(settings, opened, text, batch, where), settings=asked)
    evaluation = replace(known, exits=exits)
    if keep:
        keep_evaluation(opened, evaluation)
    return evaluation


def _exits(
    settings: ExitSettings, opened: OpenedModel, text: TextWindows, batch: int, device: torch.device
) -> ExitEvaluation:
    rules = _rules(settings.rules, opened, text, device)
    try:
        record = record_exits(opened.model, _on(device, text.batches(batch)), rules, text.bytes_per_token)
    except ValueError as error:  # of several runs, the one
        raise ValueError(f"{opened.path}: {error}") from error
    curves, calibrations = [], []
    for unit in settings.units:
        for rule in [rule for rule in rules if unit in rule.units]:
            curves.append(exit_curve(record, rule, unit))
            calibrations.append(calibrate_perplexity(record, rule, unit, settings.target / 100))
            if settings.budget is not None:
                calibrations.append(calibrate_loops(record, rule, unit, settings.budget))
    return ExitEvaluation(
        fixed=fixed_points(record),
        curves=tuple(curves),
        calibrations=tuple(calibrations),
        speeds=tuple(_speeds(settings, opened, text, rules, calibrations, device)),
    )


def _rules(
    names: Sequence[str] | None, opened: OpenedModel, text: TextWindows, device: torch.device
) -> list[AbstractRule]:
    """Those named, or all that the model can run; fixed depth is in every table anyway."""
    if names is not None:
        return [build_rule(name) for name in names]
    able: list[AbstractRule] = []
    for name in rule_names():
        rule = build_rule(name)
        if name == "fixed":
            continue
        if isinstance(rule, AbstractExitRule):
            try:
                rule.check_model(opened.model, text.input_ids[:1].to(device))
            except ValueError as reason:
                if name != "gate":  # most models have none
                    warnings.warn(f"{opened.name}: {reason}", stacklevel=2)
                continue
        able.append(rule)
    return able


def _speeds(
    settings: ExitSettings,
    opened: OpenedModel,
    text: TextWindows,
    rules: Sequence[AbstractRule],
    calibrations: Sequence[Calibration],
    device: torch.device,
) -> list[Speed]:
    """Of every calibrated threshold per sequence, on windows of the half that it was not chosen on."""
    if not settings.pairs:
        return []
    _, tested = split(len(text))
    ids = text.input_ids[tested[: settings.speed_batch]].to(device)
    running = {rule.name: rule for rule in rules if isinstance(rule, AbstractExitRule)}
    flops = _flops(opened, ids.shape[1])
    return [
        measure_speed(opened.model, ids, running[each.rule], each.threshold, settings.pairs, flops)
        for each in calibrations
        if each.unit == "sequence" and each.threshold is not None and each.rule in running
    ]


def _flops(opened: OpenedModel, sequence: int) -> Flops | None:
    """Counts FLOPs of a model of Loopscope's own; nothing counts a stranger's."""
    model = opened.model
    if not isinstance(model, LoopedTransformer):
        return None
    config = model.config
    return lambda loops, exits: float(forward_flops(config, sequence, loops, exits))


def _on(device: torch.device, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches where the model is."""
    for ids, labels in batches:
        yield ids.to(device), labels.to(device)
