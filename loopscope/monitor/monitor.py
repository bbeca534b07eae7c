"""The scale monitor: stays on during training and says so when nothing holds a scale, and when such a scale grows.

A check takes a slice of the batch (two sequences, 128 tokens by default) through the model as it is. The
scale of every loop is measured at every turn: one forward pass of the slice, without gradients. Carry,
exposure and the verdict take about three times that and come where the budget allows. The first three checks and one
verdict come whatever they cost, so that a short training has them too; later checks wait until that is paid back.
Memory: the slice's states and one chunk of its logits, plus a copy of the weights in fp32 where they are in half
precision.

The losses of the training are the same bits with and without it.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import inf, isfinite

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.audit.fast_verdict import fast_verdict
from loopscope.audit.input_checks import check_ids, in_fp32, repeats_inputs
from loopscope.audit.verdict import model_verdict, why
from loopscope.guards import undisturbed, wait
from loopscope.monitor.alarm import ScaleAlarm, switch_words
from loopscope.monitor.batch_slice import UNSHIFTED, check_arguments, check_batch, slice_of
from loopscope.monitor.growth import FEWEST, ScaleCurve, trend
from loopscope.monitor.time_budget import TimeBudget
from loopscope.numerics import scale
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.objective import Objective
from loopscope.objectives.placements import Dense
from loopscope.objectives.spelling import as_objective
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll
from loopscope.results import LoopVerdict, ScaleCheck, Verdict

KEPT = 1000
"""Checks kept in memory; beyond that, every other one is."""
SCALE_PART = 0.4
"""Part of the training's income that measuring scales may use up: the rest is left for the verdict."""


class ScaleWarning(UserWarning):
    """Warns that a scale which the loss does not see is growing, or that the monitor cannot work as it is called."""


class ScaleMonitor:
    """Watches the scale of a looped model while it trains: `monitor.step(step, input_ids, labels)`.

    Args:
        model: the model that is trained, or a view of it that shares its weights.
        objective: what it is trained on, or its word (`"dense"`); None takes dense cross-entropy without penalties.
        every: steps between checks. Stretched where checks would cost more than the budget.
        budget: most time spent on checks as a share of training time. None checks everything at every turn:
            for runs whose processes must agree on when they check.
        tokens: most tokens of the batch that a check looks at.
        log: called with the `ScaleCheck` of every check.
        tell: called with what there is to say: once that nothing holds the scale; an alarm when it grows, with its
            rate; that it has settled or turned; labels that are not shifted; a check that failed. None issues a
            `ScaleWarning`.
        steps: of the whole training, for what a scale reaches by its end; None where nobody knows.
        clock: seconds that only go forward.

    Attributes:
        history: the checks so far, oldest first.
        warned: the checks that raised an alarm. A second one does where the scale settled or fell after the first and
            then came to twice its scale.

    Raises:
        ValueError: an argument that does not fit.
    """

    def __init__(
        self,
        model: AbstractLoopedLM,
        objective: Objective | ObjectiveConfig | str | None = None,
        *,
        every: int = 20,
        budget: float | None = 0.02,
        tokens: int = 128,
        log: Callable[[ScaleCheck], None] | None = None,
        tell: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        steps: int | None = None,
    ) -> None:
        judged = as_objective(objective)
        check_arguments(model, judged, every, tokens)
        self.model = model
        self.objective: Objective = judged or Objective(Dense())
        self.every = every
        self.budget = TimeBudget(budget, clock)
        self.tokens = tokens
        self.log = log
        self.tell = tell or _warn
        self.history: list[ScaleCheck] = []
        self.warned: list[ScaleCheck] = []
        self.stopped = False  # a check failed: the training goes on without
        self.alarm = ScaleAlarm(steps)
        self._since = 0  # step from which on this objective is trained
        self._before: tuple[str, Verdict | None] | None = (
            None  # the objective until now, where a switch is due
        )
        self._unshifted: bool | None = False  # None once it was told
        self._turn: int | None = None
        self._checks = 0  # in this process
        self._scale_seconds = inf  # what a check is expected to cost
        self._verdict_seconds = inf  # and one with a verdict: unknown before the first

    def resume(self, checks: Iterable[ScaleCheck], since: int = 0) -> None:
        """Go on from the checks of an interrupted run: its history counts, and its warning is not repeated.

        Args:
            since: step from which on the monitor's objective was trained; verdicts from before are another one's.
        """
        self._since = since
        self.history, self.warned, self.alarm = [], [], ScaleAlarm(self.alarm.steps)
        for check in checks:
            self._remember(check)
        if self.history:
            self._turn = self.history[-1].step // self.every

    def switch(self, objective: Objective | ObjectiveConfig | str, step: int) -> None:
        """Judge by another objective from here on: the next call of `step` makes a check and says what has changed.

        Args:
            objective: what is trained from now on.
            step: the first step of it.

        Raises:
            ValueError: no objective.
        """
        judged = as_objective(objective)
        check_arguments(self.model, judged, self.every, self.tokens)
        self._before = (self.objective.name, self._known(None))
        self.objective, self._since = judged, step

    def step(
        self, step: int, input_ids: Int[Tensor, "batch seq"], labels: Int[Tensor, "batch seq"]
    ) -> ScaleCheck | None:
        """Make a check where one is due, and return it; else return None at once.

        Call it once per training step, after the optimizer's.

        Args:
            step: number of the step; a check is due at the first call and whenever a multiple of `every`
                is reached or passed.
            labels: the token that follows each input token; -100 is not counted. Labels that are the input tokens
                themselves are told of, once.

        Raises:
            ValueError: tokens that do not fit the model, at the first check. A later check that fails warns
                and ends the monitoring, not the training.
        """
        self.budget.tick()
        turn = step // self.every
        due = self._before is not None
        if self.stopped or (turn == self._turn and not due):
            return None
        self._turn = turn
        judge = due or self.budget.affords(self._verdict_seconds)
        early = self._checks < FEWEST
        if not judge and not early and not self.budget.earned(self._scale_seconds, SCALE_PART):
            return None
        try:
            check, reason = self._check(step, input_ids, labels, judge)
        except Exception as error:
            if not self.history:
                raise
            self.stopped = True
            self.tell(f"the scale monitor stops at step {step}, the training goes on: {error}")
            return None
        if self._unshifted:
            self._unshifted = None
            self.tell(UNSHIFTED)
        return self._keep(check, reason)

    def _check(self, step: int, input_ids: Tensor, labels: Tensor, judge: bool) -> tuple[ScaleCheck, str]:
        check_batch(input_ids, labels)
        device = next((p.device for p in self.model.parameters()), input_ids.device)
        wait(device)  # what is still in the queue is the training's time
        self.budget.tick()
        before = self.budget.spent
        loops, reason = list[LoopVerdict](), ""
        with (
            self.budget.spending(),
            undisturbed(self.model, device),
            in_fp32(self.model, input_ids[:1].to(device)),
        ):
            ids, targets = (part.to(device) for part in slice_of(input_ids, labels, self.tokens))
            counts = bool((targets != IGNORE_INDEX).any())
            check_ids(self.model, ids, targets if counts else ids)
            if self._unshifted is False:
                self._unshifted = repeats_inputs(ids, targets)
            with torch.no_grad():
                states = list(unroll(self.model, ids))
                rms = tuple(torch.stack([scale(state.hidden).mean() for state in states]).tolist())
            judge = judge or self._owes_verdict((step, rms[-1]))
            if judge and counts and all(map(isfinite, rms)):
                loops, reason = self._judge(states, targets)
        seconds = self.budget.spent - before
        if loops:
            self._verdict_seconds = seconds
        else:  # the fastest: the first one also pays for whatever is set up once
            self._scale_seconds = min(seconds, self._scale_seconds)
        self._checks += 1
        found = trend(self._sizes((step, rms[-1])))
        return ScaleCheck(
            step=step,
            rms=rms,
            growth=found.growth if found else 0.0,
            rate=found.rate if found else None,
            seconds=seconds,
            verdict=model_verdict(loops) if loops else None,
            carry=tuple(loop.carry for loop in loops),
            exposure=tuple(loop.exposure for loop in loops),
        ), reason

    def _judge(
        self, states: Sequence[LoopState], labels: Int[Tensor, "batch seq"]
    ) -> tuple[list[LoopVerdict], str]:
        """The loops' verdicts and the sentence that says why, as `audit --fast` of these tokens would have them.

        None where the loss is exactly 0 and could not see anything.
        """
        found = fast_verdict(states, self.objective, labels)
        if found.saturated:
            return [], ""
        loops, seen = found.loops, found.seen
        terms = list(dict.fromkeys(path.split("/")[0] for loop in seen for path in loop.direct))
        return loops, why(loops, seen, terms, states[0].model.readout_name)

    def _sizes(self, *more: tuple[int, float]) -> ScaleCurve:
        """Of the last loop, those that are finite."""
        every = [*((check.step, check.rms[-1]) for check in self.history), *more]
        return [(step, size) for step, size in every if isfinite(size)]

    def _owes_verdict(self, now: tuple[int, float]) -> bool:
        """Whether a verdict is due whatever it costs: none is known, or a warning hangs on it.

        Those for a warning are few: each one warns, or finds that the model is not blind (any more).
        """
        if self._checks + 1 >= FEWEST and self._verdict_seconds == inf:
            return True
        return self._known("blind") == "blind" and self.alarm.hangs_on_verdict(self._sizes(now))

    def _known(self, otherwise: Verdict | None) -> Verdict | None:
        """The last verdict on this objective."""
        own = (check for check in reversed(self.history) if check.step >= self._since)
        return next((check.verdict for check in own if check.verdict), otherwise)

    def _keep(self, check: ScaleCheck, reason: str) -> ScaleCheck:
        sizes = self._sizes((check.step, check.rms[-1]))
        blind = (check.verdict or self._known(None)) == "blind"
        event = self.alarm.event(sizes, blind, check.verdict == "blind") if isfinite(check.rms[-1]) else None
        said = None
        if self._before is not None:
            said, self._before = switch_words(check, self._before, self.objective.name, reason), None
            event = event if event == "grows" else "switched"
        if event and event != "switched":
            said = " ".join(filter(None, (said, self.alarm.words(event, sizes, reason))))
        if event == "grows":
            check = replace(check, event=event, warning=said)
        elif event:
            check = replace(check, event=event, note=said)
        self._remember(check)
        if self.log:
            self.log(check)
        if said:
            self.tell(said)
        return check

    def _remember(self, check: ScaleCheck) -> None:
        self.history.append(check)
        if len(self.history) > KEPT:
            self.history = [*self.history[:-1:2], self.history[-1]]
        event = check.event or ("grows" if check.warning is not None else None)  # of before there were events
        if event == "grows":
            self.warned.append(check)
        if event:
            unheld = event == "switched" and check.verdict == "blind"  # said with the switch
            if unheld or event != "switched":
                self.alarm.remember("unheld" if unheld else event, check.step, check.rms[-1])


def _warn(message: str) -> None:
    warnings.warn(message, ScaleWarning, stacklevel=4)
