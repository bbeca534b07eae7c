"""The report of a study or a run: results, figures, and the evaluations and audits that lie beside the runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from loopscope.report.audits.section import AuditSection, build_audit_section
from loopscope.report.contents import page_entries
from loopscope.report.evaluations.groups import evaluated_conditions, make_groups
from loopscope.report.evaluations.section import build_evaluation_section
from loopscope.report.found import AuditFiles, EvaluationFiles, check_one_model, find_audits, find_evaluations
from loopscope.report.glossary import AUDIT, DEPTH, RUNS
from loopscope.report.html import RenderedPage, origins, page_path, render
from loopscope.report.looks import Looks, condition_of
from loopscope.report.plots.drawing import Drawing, Job
from loopscope.report.statements import (
    Statement,
    audit_statements,
    depth_statements,
    ending_statement,
    listed,
    missing_statements,
    quality_statement,
)
from loopscope.report.study.conditions import RUNAWAY_DRIFT, RUNAWAY_SIZE, StudyCondition, group_runs
from loopscope.report.study.figures import build_figures
from loopscope.report.study.findings import findings
from loopscope.report.study.switches import phase_sentences
from loopscope.report.study.table import headline
from loopscope.results import (
    Comparison,
    ModelEvaluation,
    StudyResults,
    TaskEvaluation,
    load_results,
    provenance,
)
from loopscope.results.layout import AUDIT as AUDIT_FILE
from loopscope.results.layout import (
    CONFIG,
    EVALUATION,
    REPORT,
    RESULT,
    RESULTS,
    STUDY,
    TASKS,
    is_model_folder,
    run_files,
)
from loopscope.results.student_t import SEEDS_NEEDED

HERO = ("scale-last-loop", "perplexity-by-loop")
_Dumper: Any = getattr(
    yaml, "CSafeDumper", yaml.SafeDumper
)  # a hundred configs take the plain one two seconds


def write_report(source: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a study folder, a run folder, a measured model's folder or a results file; return its path.

    Audits and evaluations (`audit.json`, `evaluation.json` in the folder or in its runs' folders, `comparison.json`
    in the folder) become sections of the page.

    Args:
        out: the page's path; `report.html` in the folder by default. Figures go to `figures/` beside it.

    Raises:
        ValueError: no results there, records of another model than the folder's, or `out` is a folder.
    """
    source = Path(source)
    folder = source if source.is_dir() else source.parent
    page = page_path(folder / REPORT if out is None else Path(out), REPORT)
    with Drawing(_about(folder)) as drawing:
        rendered = _rendered(source, folder, drawing)
    rendered.write(page)
    return page


def _rendered(source: Path, folder: Path, drawing: Drawing) -> RenderedPage:
    audit_files, evaluated = find_audits(folder), find_evaluations(folder)
    check_one_model(folder, audit_files, evaluated)
    measured = [audited.provenance for audited in audit_files.audits]
    scored: list[ModelEvaluation | TaskEvaluation] = [*evaluated.evaluations, *evaluated.tasks]
    measured += [evaluation.provenance or provenance() for evaluation in scored]
    if (compared := evaluated.comparison) is not None:
        measured.append(compared.provenance or provenance())
    alone = bool(measured) and not is_run(source)
    results = StudyResults((), measured[0]) if alone else load_results(source)
    conditions = group_runs(results.runs)
    looks = page_looks(conditions, audit_files, evaluated)
    figures = build_figures(conditions, looks)
    audit = build_audit_section(audit_files.audits, looks) if audit_files.audits else None
    evaluation = build_evaluation_section(evaluated, conditions, looks)
    drawn = [*figures, *(evaluation.figures if evaluation else ()), *(audit.figures if audit else ())]
    unread = [part for part, files in (("depth", evaluated), ("audit", audit_files)) if files.unread]
    ended = any(run.status != "completed" for run in results.runs)
    hero = [figure for key in HERO for figure in figures if figure.key == key]
    statements = _statements(conditions, looks, evaluated, audit, source)
    return render(
        "page.html.j2",
        drawn,
        drawing=drawing,
        beside=[Job("hero", tuple(hero), None)] if hero else (),
        parts=[*(() if alone else [RUNS]), *([DEPTH] if evaluation else ()), *([AUDIT] if audit else ())],
        title=folder.resolve().name,
        statements=statements,
        heading=(_measured_heading(scored, compared) if alone else "") or findings(conditions, looks)[0],
        alone=alone,
        contents=page_entries(not alone, bool(figures), evaluation, audit, unread, ended),
        figures=figures,
        evaluation=evaluation,
        unread_evaluations=evaluated.unread,
        audit=audit,
        unread=audit_files.unread,
        **_study(results, conditions, looks),
    )


def _measured_heading(scored: Sequence[ModelEvaluation | TaskEvaluation], compared: Comparison | None) -> str:
    """The heading of a page that has no runs, of one model's records or of a comparison; nothing of audits alone."""
    if scored:
        return f"What was measured of {scored[0].name}"
    return "" if compared is None else f"{listed(compared.conditions)} compared"


def _about(folder: Path) -> int:
    """About how many figures a folder's page will have: other processes start to draw before records are read."""
    return 6 + 12 * sum(bool(run_files(folder, name)) for name in (AUDIT_FILE, EVALUATION, TASKS))


def is_run(source: Path) -> bool:
    """Whether a path is what training writes: a run, a study, or a file of results. A model alone may be measured."""
    trained = (source / CONFIG).exists() and not is_model_folder(source)
    return (
        not source.is_dir() or trained or any((source / name).exists() for name in (STUDY, RESULT, RESULTS))
    )


def page_looks(conditions: Sequence[StudyCondition], audits: AuditFiles, evaluated: EvaluationFiles) -> Looks:
    """Return the looks of a page: the study's conditions first, in their order, then what else was measured."""
    return Looks(
        [
            *((condition.name, condition.size) for condition in conditions),
            *evaluated_conditions(evaluated.evaluations, evaluated.comparison, evaluated.tasks),
            *((condition_of(audited.name or "model"), None) for audited in audits.audits),
        ]
    )


def _statements(
    conditions: Sequence[StudyCondition],
    looks: Looks,
    evaluated: EvaluationFiles,
    audit: AuditSection | None,
    source: Path,
) -> list[Statement]:
    """What a reader concludes: scale, depth, quality, runs that are in no mean, and what is not known yet."""
    groups = make_groups(evaluated.evaluations, conditions, evaluated.comparison, looks)
    statements = [*audit_statements(audit.models if audit else ()), *depth_statements(groups)]
    for statement in (
        quality_statement(evaluated.comparison, conditions, str(source)),
        ending_statement(conditions),
    ):
        statements += [statement] if statement else []
    if not (
        conditions or evaluated.evaluations or evaluated.tasks or audit
    ):  # a comparison of several folders
        return statements
    depth = any(group.models[0].depth for group in groups)
    return [*statements, *missing_statements(audit is not None, depth, conditions, str(source))]


def _study(results: StudyResults, conditions: Sequence[StudyCondition], looks: Looks) -> dict[str, Any]:
    """What the template shows of the runs themselves."""
    most = max((len(condition.completed) for condition in conditions), default=0)
    return {
        "findings": findings(conditions, looks),
        "phases": phase_sentences([(c, looks.of(c.name, c.size).name) for c in conditions]),
        "table": headline(conditions, looks),
        "endings": [run for run in results.runs if run.status != "completed"],
        "runs": [
            (
                run,
                looks.of(run.condition, run.size).name,
                yaml.dump(dict(run.config), Dumper=_Dumper, sort_keys=False),
            )
            for run in results.runs
        ],
        "provenance": results.provenance,
        "origins": origins([run.provenance for run in results.runs]),
        "runaway": f"{RUNAWAY_SIZE:.0f}",
        "drift": f"{RUNAWAY_DRIFT:g}",
        "intervals": most >= SEEDS_NEEDED,
        "seeds_needed": SEEDS_NEEDED,
    }
