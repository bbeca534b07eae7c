"""Verdicts on models that were trained, at laptop size: the real recipe on Python's own sources, for fewer steps."""

from pathlib import Path
from typing import Any

import pytest

from loopscope.config.recipes import CONDITIONS, recipe
from loopscope.jobs.audit import audit_subject
from loopscope.jobs.opened import open_subject
from loopscope.jobs.train import execute
from loopscope.results import AuditedModel, RunResult
from tests.fixtures import VERDICTS


def trained(condition: str, run: Path, **training: Any) -> tuple[RunResult, AuditedModel]:
    over = {
        "data": {"max_bytes": 2_000_000, "max_validation_bytes": 100_000},
        "training": {
            "evaluate_every": None,
            "checkpoint_every": None,
            "threads": 1,
            "final_windows": 16,
            **training,
        },
    }
    result = execute(recipe("laptop", condition, over), run, quiet=True)
    return result, audit_subject(open_subject(run), None, None, sequences=2, length=None)


def test_every_shipped_condition_is_expected() -> None:
    assert VERDICTS.keys() == CONDITIONS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("condition", VERDICTS)
def test_verdicts_of_trained_models(condition: str, cache: Path, tmp_path: Path) -> None:
    result, audited = trained(condition, tmp_path / "run", steps=30, batch=4)
    assert result.status == "completed"
    statuses = {loop.status for loop in audited.report.loops}
    assert audited.report.verdict == VERDICTS[condition]
    assert statuses == {VERDICTS[condition]}  # at every loop
    assert audited.objective_from == "model"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_advice_works(cache: Path, tmp_path: Path) -> None:
    """A blind model, told to add a penalty and retrained: no longer blind, and its state stays small."""
    before, blind = trained("dense/rmsnorm", tmp_path / "blind", steps=150, batch=8)
    advice = blind.report.remedies[0]
    assert blind.report.verdict == "blind"
    assert (advice.change, advice.verdict) == ("add a norm penalty of weight 0.01", "visible")
    after, mended = trained("dense/rmsnorm+penalty", tmp_path / "mended", steps=150, batch=8)
    assert mended.report.verdict == "visible"
    assert before.per_loop[-1].l2_norm > 6 * after.per_loop[-1].l2_norm
