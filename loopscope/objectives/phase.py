"""The phases of a run: which of its objectives trains at which steps. Importable without torch.

A pure function of the config and the number of steps, so that a resumed run is in the phase that it would have been in.
"""

from loopscope.objectives.config import ObjectiveConfig
from loopscope.results.run_phases import RunPhase


def phases_over(config: ObjectiveConfig, steps: int) -> tuple[RunPhase, ...]:
    """Return the phases of a run of so many steps; one where there is no schedule.

    A phase with `until` ends with the step nearest to that share of the steps.

    Raises:
        ValueError: a phase in which no step would fall.
    """
    ends = [steps]
    if config.schedule is not None:
        ends = [
            phase.until_step or (steps if phase.until is None else round(phase.until * steps))
            for phase in config.schedule[:-1]
        ] + ends
    phases: list[RunPhase] = []
    first = 1
    for number, (end, terms) in enumerate(zip(ends, config.phases, strict=True), start=1):
        if end < first or (end >= steps and number < len(ends)):
            empty = number if end < first else number + 1
            raise ValueError(
                f"objective.schedule leaves no step for phase {empty} ({objective_name(config.phases[empty - 1])}) in "
                f"a run of {steps} steps; give more steps, or move the ends of the phases"
            )
        phases.append(RunPhase(number, first, end, objective_name(terms)))
        first = end + 1
    return tuple(phases)


def objective_name(config: ObjectiveConfig) -> str:
    """Return what reports call an objective: `dense + norm_penalty`; phases with `, then` between them."""
    if config.schedule is not None:
        return ", then ".join(objective_name(phase) for phase in config.schedule)
    terms = ("norm_penalty", "scale_anchor", "shortcut", "jacobian")
    return " + ".join([config.placement, *(name for name in terms if getattr(config, name).weight > 0)])
