"""What several tests share: values, and the command line in this process."""

import sys
from collections.abc import Callable

import pytest

from loopscope import cli
from loopscope.config.run_config import RunConfig
from loopscope.plan.scale_facts import step_does
from loopscope.plan.static_audit import UNKNOWN
from loopscope.results import StaticLoop, Verdict


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `loopscope …` in this process. Flags of `TINY` give way to a test's own."""
    words = [str(argument) for argument in arguments]
    own = {word.partition("=")[0] for word in words if word not in TINY}
    words = [word for word in words if word not in TINY or word.partition("=")[0] not in own]
    monkeypatch.setattr(sys, "argv", ["loopscope", *words])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


TINY = [
    "--size=laptop",
    "--model.dim=16",
    "--model.heads=2",
    "--model.layers=1",
    "--model.loops=2",
    "--model.vocabulary=64",
    "--model.sequence=16",
    "--data.max-bytes=40000",
    "--data.max-validation-bytes=3000",
    "--data.tokenizer.vocabulary=64",
    "--training.steps=3",
    "--training.batch=4",
    "--training.log-every=1",
    "--training.threads=1",
]
"""Flags of a run that takes seconds."""

PUBLISHED = (
    "adaptive_rmsnorm_damped",
    "dense_alpha_fixed",
    "dense_final_only",
    "dense_rmsnorm",
    "dense_rmsnorm_interloop",
    "terminal_raw",
)
"""Folders of the published fixtures."""

VERDICTS = {
    "terminal/rmsnorm": "blind",
    "terminal/raw": "visible",
    "dense/rmsnorm": "blind",
    "dense/layernorm": "blind",
    "dense/raw": "visible",
    "dense/final-only": "visible",
    "dense/alpha": "visible",
    "terminal/rmsnorm+penalty": "visible",
    "dense/rmsnorm+penalty": "visible",
    "dense/rmsnorm+interloop": "removed",
}
"""What every shipped condition is, trained or not."""


def refusal(of: Callable[[], object]) -> str | None:
    """What was said; None where nothing was refused. Everything but a ValueError goes on up, and fails."""
    try:
        of()
    except ValueError as error:
        return str(error)
    return None


def open_verdicts(config: RunConfig, said: StaticLoop) -> set[Verdict]:
    """What an audit may measure where a config says `said`: that, but for the two things that no config knows.

    A sight that fades as 1/s (a coda, a Jacobian) may be too small to count at the start, and larger once weights
    have grown: the loop is then what its step makes of it. And a learned matrix on the state (injection concat) may
    shrink it or not. Each is said in the reason. With a decay, that matrix may leave less than an audit counts as
    carried (a carry of 0.047 was drawn): nothing of the scale arrives then, whoever sees it.
    """
    learned: set[Verdict] = {"damped", "blind"} if UNKNOWN in said.reason else set()
    if "fading" in said.reason:
        damps = step_does(config.model).effect == "damps"
        return {"visible", "damped" if damps else "blind"} | learned
    gone: set[Verdict] = (
        {"removed"} if config.model.injection.kind == "concat" and config.model.carry else set()
    )
    return {said.status} | gone | (learned if said.status in learned else set())
