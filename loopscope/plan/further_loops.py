"""What a config says of more loops than the trained depth: which of them training runs, and what it leaves open.

A config decides how many steps run how many loops, and whether a scale that goes on growing can change an exit. Whether
the direction of the state settles is for a trained model to show (`loopscope audit RUN`).
"""

from loopscope.config.run_config import RunConfig
from loopscope.objectives.depth_config import draw_depths
from loopscope.plan.scale_facts import readout_sees, step_does

LOOKED_AT = 2000
"""Steps whose depths are drawn, at most: the last ones of the run."""


def further_loops(config: RunConfig) -> str:
    """Return sentences on 2K and 4K loops: what of them is trained, what scale alone can do, what is not decided."""
    loops = config.model.loops
    if loops == 1:
        return "More loops than trained: not decided; one loop is trained, and nothing of it to be repeated"
    asked = (2 * loops, 4 * loops)
    shares = _shares(config, asked) if config.training.depth.varies else [0.0, 0.0]
    left = (
        "Both depths are trained; what they are worth is not decided by a config"
        if all(shares)
        else "Whether the direction settles there is not decided by a config"
    )
    return f"More loops than trained: {_trained(config, asked, shares)}. {_scale(config)}. {left}"


def _shares(config: RunConfig, asked: tuple[int, ...]) -> list[float]:
    """The share of steps that run so many loops or more, of the last of the run: there a curriculum is over."""
    training = config.training
    steps = training.steps or LOOKED_AT
    drawn = [
        max(draw_depths(training.depth, config.model.loops, training.seed, step, training.batch))
        for step in range(max(0, steps - LOOKED_AT), steps)
    ]
    return [sum(depth >= loops for depth in drawn) / len(drawn) for loops in asked]


def _trained(config: RunConfig, asked: tuple[int, ...], shares: list[float]) -> str:
    if not config.training.depth.varies:
        return f"every step of training runs {config.model.loops}, none runs {asked[0]}"
    said = [
        f"{share:.0%} of the steps run {loops} or more" if share else f"none runs {loops}"
        for loops, share in zip(asked, shares, strict=True)
    ]
    return ", ".join(said)


def _scale(config: RunConfig) -> str:
    loops = config.model.loops
    if step_does(config.model).effect == "removes":
        return "The scale is removed between loops: how large a state is goes no further"
    seen = readout_sees(config.model, loops, loops)
    if seen.sight == "nothing":
        return f"A scale that grows on changes no exit by itself: {seen.why}"
    return f"A scale that grows on changes exits: {seen.why}"
