"""The scale monitor: stays on during training and says so when a blind scale grows.

A check takes a slice of the batch (two sequences, 128 tokens by default) through the model as it is. The
scale of every loop is measured at every turn: one forward pass of the slice, without gradients. Carry,
exposure and the verdict take about ten times that and come where the budget allows. The first three checks and one
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

from loopscope.audit.carry import measure_carries
from loopscope.audit.input_checks import check_ids, in_fp32, repeats_inputs
from loopscope.audit.verdict import loop_verdicts, model_verdict, why
from loopscope.audit.visibility import direct_visibility, grown_visibility, loop_visibility
from loopscope.guards import undisturbed, wait
from loopscope.monitor.batch_slice import UNSHIFTED, check_arguments, check_batch, slice_of
from loopscope.monitor.growth import FEWEST, RUNAWAY_GROWTH, growth, rising
from loopscope.monitor.time_budget import TimeBudget
from loopscope.numerics import scale
from loopscope.objectives.objective import Objective
from loopscope.objectives.placements import Dense
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import AbstractLoopedLM, LoopState, unroll
from loopscope.results import LoopVerdict, ScaleCheck

AGAIN = 2.0
"""Times the scale of the last warning from which a scale that had settled since is warned of again."""
WARNINGS = 2
"""Most warnings."""
KEPT = 1000
"""Checks kept in memory; beyond that, every other one is."""
SCALE_PART = 0.4
"""Part of the training's income that measuring scales may use up: the rest is left for the verdict."""
ADVICE = (
    "Add a penalty on the state's size to the loss (0.01 × mean square of H, say), read the raw state at every loop "
    "but the last, or put a norm between loops; loopscope.audit(model, input_ids, labels, objective) measures each."
)


class ScaleWarning(UserWarning):
    """Warns that a scale which the loss does not see is growing, or that the monitor cannot work as it is called."""


class ScaleMonitor:
    """Watches the scale of a looped model while it trains: `monitor.step(step, input_ids, labels)`.

    Args:
        model: the model that is trained, or a view of it that shares its weights.
        objective: what it is trained on; None takes dense cross-entropy without penalties.
        every: steps between checks. Stretched where checks would cost more than the budget.
        budget: most time spent on checks as a share of training time. None checks everything at every turn:
            for runs whose processes must agree on when they check.
        tokens: most tokens of the batch that a check looks at.
        log: called with the `ScaleCheck` of every check.
        tell: called with the warning, once for a runaway, and with what else the user should know (labels that are
            not shifted, a check that failed); None issues a `ScaleWarning`.
        clock: seconds that only go forward.

    Attributes:
        history: the checks so far, oldest first.
        warned: the checks that warned. A second one does where the scale settled after the first and then doubled.

    Raises:
        ValueError: an argument that does not fit.
    """

    def __init__(
        self,
        model: AbstractLoopedLM,
        objective: Objective | None = None,
        *,
        every: int = 20,
        budget: float | None = 0.02,
        tokens: int = 128,
        log: Callable[[ScaleCheck], None] | None = None,
        tell: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_arguments(model, objective, every, tokens)
        self.model = model
        self.objective = objective or Objective(Dense())
        self.every = every
        self.budget = TimeBudget(budget, clock)
        self.tokens = tokens
        self.log = log
        self.tell = tell or _warn
        self.history: list[ScaleCheck] = []
        self.warned: list[ScaleCheck] = []
        self.stopped = False  # a check failed: the training goes on without
        self._settled = False  # since the last warning
        self._unshifted: bool | None = False  # None once it was told
        self._turn: int | None = None
        self._checks = 0  # in this process
        self._scale_seconds = inf  # what a check is expected to cost
        self._verdict_seconds = inf  # and one with a verdict: unknown before the first

    def resume(self, checks: Iterable[ScaleCheck]) -> None:
        """Go on from the checks of an interrupted run: its history counts, and its warning is not repeated."""
        self.history, self.warned, self._settled = [], [], False
        for check in checks:
            self._remember(check)
        if self.history:
            self._turn = self.history[-1].step // self.every

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
        if self.stopped or turn == self._turn:
            return None
        self._turn = turn
        judge = self.budget.affords(self._verdict_seconds)
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
        with self.budget.spending(), undisturbed(self.model, device), in_fp32(self.model):
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
        return ScaleCheck(
            step=step,
            rms=rms,
            growth=growth(self._sizes((step, rms[-1]))),
            seconds=seconds,
            verdict=model_verdict(loops) if loops else None,
            carry=tuple(loop.carry for loop in loops),
            exposure=tuple(loop.exposure for loop in loops),
        ), reason

    def _judge(
        self, states: Sequence[LoopState], labels: Int[Tensor, "batch seq"]
    ) -> tuple[list[LoopVerdict], str]:
        """The loops' verdicts and the sentence that says why, as an audit of these tokens would have them."""
        direct = direct_visibility(states, self.objective, labels)
        grown = grown_visibility(states, self.objective, labels)
        seen = [
            loop_visibility(state, own, {}, larger)
            for state, own, larger in zip(states, direct, grown, strict=True)
        ]
        loops = loop_verdicts(seen, measure_carries(states))
        terms = list(dict.fromkeys(path.split("/")[0] for loop in seen for path in loop.direct))
        return loops, why(loops, seen, terms, states[0].model.readout_name)

    def _sizes(self, *more: tuple[int, float]) -> list[tuple[int, float]]:
        return [*((check.step, check.rms[-1]) for check in self.history), *more]

    def _owes_verdict(self, now: tuple[int, float]) -> bool:
        """Whether a verdict is due whatever it costs: none is known, or a warning hangs on it.

        Those for a warning are few: each one warns, or finds that the model is not blind (any more).
        """
        if self._checks + 1 >= FEWEST and self._verdict_seconds == inf:
            return True
        known = next((check.verdict for check in reversed(self.history) if check.verdict), "blind")
        return known == "blind" and self._runs_away(self._sizes(now))

    def _runs_away(self, sizes: list[tuple[int, float]]) -> bool:
        """Whether the scale has grown, still grows, and that is news."""
        if growth(sizes) < RUNAWAY_GROWTH or not rising(sizes):
            return False
        if not self.warned:
            return True
        news = self._settled and sizes[-1][1] >= AGAIN * self.warned[-1].rms[-1]
        return news and len(self.warned) < WARNINGS

    def _keep(self, check: ScaleCheck, reason: str) -> ScaleCheck:
        if check.verdict == "blind" and self._runs_away(self._sizes((check.step, check.rms[-1]))):
            first, again = (self.warned[-1], " again") if self.warned else (self.history[0], "")
            check = replace(
                check,
                warning=f"step {check.step}: the scale of the last loop has grown{again} and the loss does not see it "
                f"(RMS {first.rms[-1]:.4g} at step {first.step}, {check.rms[-1]:.4g} now). {reason} {ADVICE}",
            )
        self._remember(check)
        if self.log:
            self.log(check)
        if check.warning:
            self.tell(check.warning)
        return check

    def _remember(self, check: ScaleCheck) -> None:
        self.history.append(check)
        if len(self.history) > KEPT:
            self.history = [*self.history[:-1:2], self.history[-1]]
        if check.warning is not None:
            self.warned.append(check)
            self._settled = False
        elif self.warned and not self._settled:
            since = sum(kept.step >= self.warned[-1].step for kept in self.history)
            self._settled = since >= FEWEST and not rising(self._sizes())


def _warn(message: str) -> None:
    warnings.warn(message, ScaleWarning, stacklevel=4)
