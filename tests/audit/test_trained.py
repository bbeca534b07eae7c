"""Verdicts on models that were trained: the real laptop recipe on Python's own sources, for fewer and shorter steps."""

from collections.abc import Callable, Iterator
from functools import cache

import pytest

from loopscope.audit.audit_report import judge
from loopscope.config.recipes import CONDITIONS, recipe
from loopscope.jobs import OpenedModel, audit_model, open_model
from loopscope.jobs.text import some_windows
from loopscope.jobs.train import execute
from loopscope.objectives.objective import build_objective
from loopscope.results import RunResult
from tests.fixtures import VERDICTS

pytestmark = pytest.mark.timeout(1800)

Trained = Callable[[str], tuple[RunResult, OpenedModel]]

BLIND, MENDED = "dense/rmsnorm", "dense/rmsnorm+penalty"
STEPS = {BLIND: 150, MENDED: 150}
"""Of those that are told apart by how far their state has grown; the rest: 30."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """A condition's run and its model. Each is trained once, and the text is read once for all."""
    folder = tmp_path_factory.mktemp("trained")

    @cache
    def train(condition: str) -> tuple[RunResult, OpenedModel]:
        over = {
            "model": {
                "sequence": 32,
                "vocabulary": 512,
            },  # the head takes most of a step with the recipe's own
            "data": {
                "max_bytes": 600_000,
                "max_validation_bytes": 50_000,
                "tokenizer": {"vocabulary": 512},
            },
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
        return result, open_model(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCOPE_CACHE", str(folder / "cache"))
        yield train


def test_every_shipped_condition_is_expected() -> None:
    assert VERDICTS.keys() == CONDITIONS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("condition", VERDICTS)
def test_verdicts_of_trained_models(condition: str, trained: Trained) -> None:
    result, opened = trained(condition)
    assert result.status == "completed"
    assert opened.objective is not None  # the run says what it was trained on
    tokens = some_windows(opened, None, 2)
    loops = judge(opened.model, tokens.input_ids, tokens.labels, build_objective(opened.objective)).loops
    assert {loop.status for loop in loops} == {VERDICTS[condition]}  # at every loop


@pytest.mark.slow
def test_the_advice_works(trained: Trained) -> None:
    """A blind model, told to add a penalty and retrained: no longer blind, and its state stays small."""
    (before, unaided), (after, penalised) = trained(BLIND), trained(MENDED)
    blind, mended = (audit_model(opened, sequences=2) for opened in (unaided, penalised))
    assert blind.objective_from == mended.objective_from == "model"
    advice = blind.report.remedies[0]
    assert blind.report.verdict == "blind"
    assert (advice.change, advice.verdict) == ("add a norm penalty of weight 0.01", "visible")
    assert mended.report.verdict == "visible"
    assert before.per_loop[-1].l2_norm > 6 * after.per_loop[-1].l2_norm
