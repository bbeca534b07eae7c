"""The evaluations that lie beside the runs of a study, and the comparison that lies in its folder."""

from dataclasses import dataclass
from pathlib import Path

from loopscope.report.audits.found import run_folders
from loopscope.results import EVALUATION, Comparison, ModelEvaluation, load_comparison, load_evaluation


@dataclass(frozen=True)
class FoundEvaluations:
    """Evaluations, first seeds first, the comparison, and files that could not be read, each with why."""

    evaluations: tuple[ModelEvaluation, ...]
    comparison: Comparison | None
    unread: tuple[str, ...]


def find_evaluations(folder: Path) -> FoundEvaluations:
    """`evaluation.json` in a run's folder or in those of a study's runs, and `comparison.json`.

    A file that is neither is named on the page and costs nobody the report.
    """
    evaluations = []
    comparison = None
    unread = []
    for path in run_folders(folder, EVALUATION):
        try:
            if (evaluation := load_evaluation(path)) is not None:
                evaluations.append(evaluation)
        except ValueError as error:
            unread.append(str(error).replace(f"{folder}/", ""))
    try:
        comparison = load_comparison(folder)
    except ValueError as error:
        unread.append(str(error).replace(f"{folder}/", ""))
    return FoundEvaluations(tuple(evaluations), comparison, tuple(unread))
