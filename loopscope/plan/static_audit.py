"""The audit of a config: which loops will be blind, before any training. Importable without torch.

The same four words as the measured verdict, by the same rule, from what the settings say: which loss terms read
H_k at each loop, whether they can see its scale there, and what the step between loops leaves of it. A test holds
this reading equal to the measured one on every shipped condition. Two things a config cannot know: how much a sight
that fades as 1/s shows at the start, and what a learned matrix on the state leaves of it. Reasons then say so.

One thing only the config knows: where backpropagation is cut short (`training.depth.backprop`), terms on the loops
before the cut train no layer, and no term reaches back through it. Such a loop is held by what sees a later one, to
which its scale is carried: the layers are the same. A measured audit unrolls without a cut.
"""

from collections.abc import Callable

from loopscope.config.run_config import RunConfig
from loopscope.model.config import ModelConfig
from loopscope.model.config.chosen_variants import injection_of
from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.phase import objective_name, phases_over
from loopscope.objectives.placement_config import placement_of
from loopscope.plan.further_loops import further_loops
from loopscope.plan.scale_facts import Sight, gate_sees, readout_sees, step_does
from loopscope.plan.static_rest import resting_by_config
from loopscope.plan.training_flops import phase_costs, phase_shares
from loopscope.results import WORST_FIRST, StaticAudit, StaticLoop, StaticPhase, Verdict


def audit_config(config: RunConfig) -> StaticAudit:
    """Read a run's config and give the verdict of every loop and of the model, and why.

    With a schedule of objectives, every phase is judged; the whole has the verdict of its worst phase.
    """
    cut, read = loops_before_cut(config), config.objective.phases
    judged = [_judged(config.model, objective, cut) for objective in read]
    if len(judged) == 1:
        verdict, why, loops = judged[0]
        resting, deeper = _resting(config.model, read[0], verdict), further_loops(config)
        return StaticAudit(config.condition, verdict, why, loops, resting=resting, deeper=deeper)
    begin, phases = 0.0, list[StaticPhase]()
    steps = config.training.steps
    taken = None if steps is None else phases_over(config.objective, steps)
    for number, (verdict, why, loops) in enumerate(judged):
        share = phase_shares(config)[number]
        when = (
            f"{100 * begin:.3g} % to {100 * (begin + share):.3g} % of the steps"
            if taken is None
            else f"steps {taken[number].first}-{taken[number].last}"
        )
        cost = phase_costs(config)[number]
        phases.append(StaticPhase(objective_name(read[number]), when, verdict, why, loops, share, cost))
        begin += share
    worst = min(phases, key=lambda phase: WORST_FIRST.index(phase.verdict))
    others = ", ".join(
        f"phase {number}, {phase.name}, is {phase.verdict}"
        for number, phase in enumerate(phases, start=1)
        if phase is not worst
    )
    why = f"in phase {phases.index(worst) + 1}, {worst.name} ({worst.when}), {worst.why}; {others}"
    resting = _resting(config.model, read[-1], judged[-1][0])  # what it ends under
    deeper = further_loops(config)
    return StaticAudit(config.condition, worst.verdict, why, worst.loops, tuple(phases), resting, deeper)


def _resting(model: ModelConfig, objective: ObjectiveConfig, verdict: Verdict) -> str:
    loops = range(1, model.loops + 1)
    seen = dict.fromkeys(term for loop in loops for term in _seen_at(model, objective, loop))
    return resting_by_config(model, objective, verdict, list(seen))


def _judged(
    model: ModelConfig, objective: ObjectiveConfig, cut: int
) -> tuple[Verdict, str, tuple[StaticLoop, ...]]:
    """The model's verdict under one objective, why, and that of every loop."""
    loops: list[StaticLoop] = []
    for loop in range(1, model.loops + 1):
        status, reason = _loop(model, objective, loop, cut)
        if loop == model.loops > 1 and status not in ("removed", "visible"):
            # Carried nowhere in training: what held or lost the state it comes from holds or loses it.
            status, reason = loops[-1].status, f"it comes from loop {loop - 1}: {_plain(loops[-1])}"
        if loop <= cut:
            reason += f"{CUT}: its layers are trained at {_names([*range(cut + 1, model.loops + 1)])} only"
        loops.append(StaticLoop(loop, status, reason, gradient=loop > cut))
    verdict = next(status for status in WORST_FIRST if any(loop.status == status for loop in loops))
    concerned = [loop for loop in loops if loop.status == verdict]
    where = "every loop" if len(concerned) == len(loops) else _names([loop.loop for loop in concerned])
    before = f"; no gradient reaches {_names([*range(1, cut + 1)])}" if cut else ""
    return verdict, f"{verdict} at {where}: {_plain(concerned[0])}{before}", tuple(loops)


def loops_before_cut(config: RunConfig) -> int:
    """Return the loops of an unroll of the trained depth that run without gradient, as backpropagation is cut short."""
    backprop, loops = config.training.depth.backprop, config.model.loops
    return 0 if backprop is None else max(0, loops - backprop)


def _plain(loop: StaticLoop) -> str:
    return loop.reason.partition(CUT)[0]


def _loop(model: ModelConfig, objective: ObjectiveConfig, loop: int, cut: int) -> tuple[Verdict, str]:
    if model.loops == 1:
        return _only_loop(model, objective)
    step = step_does(model)
    if step.effect == "removes":
        return "removed", f"{step.why}: nothing of the scale reaches the next loop"
    injection = injection_of(model)
    unknown = f"; {UNKNOWN}" if injection is not None and injection.declaration.learned_map else ""
    if found := _seen_by(model, objective, loop, cut, fading=False):
        return "visible", f"{found[0]} sees it {found[1]}"
    faded = _seen_by(model, objective, loop, cut, fading=True)
    if faded and step.effect != "damps":
        return "visible", f"{faded[0]} sees it {faded[1]}, how much a config cannot know{unknown}"
    if faded:
        # What shrinks anyway may be too small to count where only something of fixed size shows it.
        return "damped", f"{step.why}{unknown}; {faded[0]} may show it {faded[1]}"
    unseen = _hidden(model, objective)
    unseen += f"{',' * (',' in unseen)} and there is no penalty on scale"
    if any(_seen_at(model, objective, before) for before in range(loop, cut + 1)):
        unseen = f"what sees it reads loops before the cut of training.depth.backprop (loop {cut}), and trains no layer"
    if step.effect == "damps":
        return "damped", f"{unseen}, but {step.why}{unknown}"
    return "blind", f"{unseen}, while the recurrence carries it on{unknown}"


def _only_loop(model: ModelConfig, objective: ObjectiveConfig) -> tuple[Verdict, str]:
    """No recurrence: the scale is made anew in every forward pass, and goes nowhere but to the readout."""
    if found := _seen_by(model, objective, 1, cut=0, fading=False):
        return "visible", f"{found[0]} sees it {found[1]}"
    if found := _seen_by(model, objective, 1, cut=0, fading=True):
        return "visible", f"{found[0]} sees it {found[1]}, how much a config cannot know"
    return "removed", "it is the only loop: without a recurrence nothing carries a scale on"


def _seen_by(
    model: ModelConfig, objective: ObjectiveConfig, loop: int, cut: int, fading: bool
) -> tuple[str, str] | None:
    """The first term that sees the scale of `loop`, and at which loop; those that fade with it, or the others."""
    for later in range(max(loop, cut + 1), model.loops + 1):
        for term in _seen_at(model, objective, later):
            if (term in FADING_TERMS) == fading:
                return term, "here" if later == loop else f"at loop {later}, to which the scale is carried"
    return None


def _seen_at(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> list[str]:
    """The terms that see the scale of H at `loop` itself, strongest first."""
    return [term for term, sees in TERMS.items() if sees(model, objective, loop)]


def _cross_entropy(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> bool:
    return (
        placement_of(objective).trains(loop, model.loops)
        and readout_sees(model, loop, model.loops).sight == "scale"
    )


def _coda(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> bool:
    return (
        placement_of(objective).trains(loop, model.loops)
        and readout_sees(model, loop, model.loops).sight == "ratio"
    )


def _gate(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> bool:
    return _gate_sight(model, objective, loop) == "scale"


def _gate_coda(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> bool:
    return _gate_sight(model, objective, loop) == "ratio"


def _gate_sight(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> Sight:
    # The last loop takes what the earlier gates leave: its own gate has no say.
    seen = gate_sees(model, loop, model.loops)
    trained = placement_of(objective).declaration.gate == "weighs" and loop < model.loops
    return seen.sight if trained and seen is not None else "nothing"


def _norm_penalty(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> bool:
    return objective.norm_penalty.weight > 0 and _weighed(objective.norm_penalty.loop_weights, loop)


def _scale_anchor(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> bool:
    return objective.scale_anchor.weight > 0 and _weighed(objective.scale_anchor.loop_weights, loop)


def _shortcut(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> bool:
    return _shortcut_sight(model, objective, loop) == "scale"


def _shortcut_coda(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> bool:
    return _shortcut_sight(model, objective, loop) == "ratio"


def _shortcut_sight(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> Sight:
    # Outside training the shorter unroll ends half way; there its readout is that of a last loop.
    short = model.loops // 2
    own = model.loop_embedding != "modulation"  # otherwise it is another unroll, whose states are not these
    on = objective.shortcut.weight > 0 and own and loop == short
    return readout_sees(model, short, short).sight if on else "nothing"


def _jacobian(model: ModelConfig, objective: ObjectiveConfig, loop: int) -> bool:
    return objective.jacobian.weight > 0 and objective.jacobian.through_state and loop == model.loops


TERMS: dict[str, Callable[[ModelConfig, ObjectiveConfig, int], bool]] = {
    "the cross-entropy through its readout": _cross_entropy,
    "the norm penalty": _norm_penalty,
    "the scale anchor": _scale_anchor,
    "the shortcut through its readout": _shortcut,
    "the exit gate (which may saturate)": _gate,
    "the cross-entropy through the coda (fading as 1/s)": _coda,
    "the shortcut through the coda (fading as 1/s)": _shortcut_coda,
    "the exit gate through the coda (fading as 1/s)": _gate_coda,
    "the Jacobian penalty (fading as 1/s)": _jacobian,
}
"""Loss terms that can see scale, strongest first. A new term is a line here."""

FADING_TERMS = frozenset(term for term in TERMS if "fading" in term)
"""Those that see scale only against something of fixed size: at the start it may be too little to count."""

CUT = "; no gradient reaches it (training.depth.backprop)"
"""Starts what is added to the reason of a loop before the cut."""

UNKNOWN = "what the injection's learned matrix leaves of the state a config cannot know"


def _hidden(model: ModelConfig, objective: ObjectiveConfig) -> str:
    placement = placement_of(objective)
    if placement.gate_only:
        return "only the gate is trained"
    if [loop for loop in range(1, model.loops + 1) if placement.reads(loop, model.loops)] == [model.loops]:
        return f"only loop {model.loops} is read, by readout {model.readout.kind}, which is scale-invariant there"
    if model.coda_norm:
        return f"readout {model.readout.kind} normalises before the coda"
    return f"readout {model.readout.kind} is scale-invariant"


def _weighed(weights: tuple[float, ...] | None, loop: int) -> bool:
    return weights is None or weights[loop - 1] > 0


def _names(loops: list[int]) -> str:
    if len(loops) > 2 and loops[-1] - loops[0] == len(loops) - 1:
        return f"loops {loops[0]}-{loops[-1]}"
    return f"loop {loops[0]}" if len(loops) == 1 else f"loops {', '.join(map(str, loops))}"
