"""Verdicts on models that were trained: the real laptop recipe on Python's own sources, for fewer and shorter steps."""

from collections.abc import Callable, Iterator
from functools import cache

import pytest

from loopscope.config.recipes import CONDITIONS, recipe
from loopscope.jobs import audit_model, open_model
from loopscope.jobs.train import execute
from loopscope.results import AuditedModel, RunResult
from tests.fixtures import VERDICTS

pytestmark = pytest.mark.timeout(1800)

Trained = Callable[[str], tuple[RunResult, AuditedModel]]

BLIND, MENDED = "dense/rmsnorm", "dense/rmsnorm+penalty"
STEPS = {BLIND: 150, MENDED: 150}
"""Of those that are told apart by how far their state has grown; the rest: 30."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """A condition's run and its audit. Each is trained once, and the text is read once for all."""
    folder = tmp_path_factory.mktemp("trained")

    @cache
    def train(condition: str) -> tuple[RunResult, AuditedModel]:
        over = {
            "model": {"sequence": 32},
            "data": {"max_bytes": 2_000_000, "max_validation_bytes": 100_000},
            "training": {
                "steps": STEPS.get(condition, 30),
                "batch": 4,
                "evaluate_every": None,
                "checkpoint_every": None,
                "threads": 1,
                "final_windows": 16,
            },
        }
        run = folder / condition
        result = execute(recipe("laptop", condition, over), run, quiet=True)
        return result, audit_model(open_model(run), sequences=2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCOPE_CACHE", str(folder / "cache"))
        yield train


def test_every_shipped_condition_is_expected() -> None:
    assert VERDICTS.keys() == CONDITIONS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("condition", VERDICTS)
def test_verdicts_of_trained_models(condition: str, trained: Trained) -> None:
    result, audited = trained(condition)
    assert result.status == "completed"
    statuses = {loop.status for loop in audited.report.loops}
    assert audited.report.verdict == VERDICTS[condition]
    assert statuses == {VERDICTS[condition]}  # at every loop
    assert audited.objective_from == "model"


@pytest.mark.slow
def test_the_advice_works(trained: Trained) -> None:
    """A blind model, told to add a penalty and retrained: no longer blind, and its state stays small."""
    (before, blind), (after, mended) = trained(BLIND), trained(MENDED)
    advice = blind.report.remedies[0]
    assert blind.report.verdict == "blind"
    assert (advice.change, advice.verdict) == ("add a norm penalty of weight 0.01", "visible")
    assert mended.report.verdict == "visible"
    assert before.per_loop[-1].l2_norm > 6 * after.per_loop[-1].l2_norm
