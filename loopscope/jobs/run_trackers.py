"""What trackers are told of a run: its name, config and verdicts, its result and, later, its audit and its page."""

import warnings
from collections.abc import Mapping
from pathlib import Path

from loopscope.config.nested import read_yaml
from loopscope.config.run_config import RunConfig, kept_config
from loopscope.plan.static_audit import audit_config
from loopscope.results import RunResult
from loopscope.results.layout import CONFIG, RESULT, is_study, run_files
from loopscope.training.loggers import LoggedRun, LoggerGroup, kept_trackers, shown_loops
from loopscope.training.metrics import read_metrics

PROJECT = "loopscope"
"""Of a run that is in no study."""


def open_trackers(config: RunConfig, run: str | Path) -> LoggerGroup:
    """Open the trackers that a run's config names, and give them its config and what that alone says of its scale."""
    run = Path(run)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a damaged file of metrics is told where it is read to be gone on with
        records = read_metrics(run) if config.training.log else []
    group = LoggerGroup(config.training.log, _logged(config, run), config.model.dim, records)
    if group.open:
        said = audit_config(config)
        group.text("static verdict", f"**{said.verdict}**, by its config alone: {said.why}")
        group.file(run / CONFIG)
    return group


def close_trackers(group: LoggerGroup, result: RunResult, run: str | Path) -> None:
    """Give trackers how a run ended, and close them."""
    if group.open:
        group.text("result", "\n\n".join(result.lines()))
        if said := _monitored(run):
            group.text("verdict", said)
        group.file(Path(run) / RESULT)
    group.close()


def add_to_trackers(path: str | Path, texts: Mapping[str, str], *files: str | Path) -> None:
    """Give the trackers of a run, or of every run of a study, what was measured or written of it since.

    Runs without trackers are left alone, and what a tracker refuses is a warning.
    """
    path = Path(path)
    runs = [found.parent for found in run_files(path, CONFIG)] if is_study(path) else [path]
    for run in runs:
        kept = kept_trackers(run)
        if not kept or not (run / CONFIG).is_file():
            continue
        try:
            config = kept_config(read_yaml(run / CONFIG), str(run / CONFIG))
        except ValueError as error:
            warnings.warn(f"the trackers of {run} were not told of it: {error}", stacklevel=2)
            continue
        named = config.model_copy(
            update={"training": config.training.model_copy(update={"log": tuple(kept["loggers"])})}
        )
        records = read_metrics(run)
        group = LoggerGroup(named.training.log, _logged(named, run), config.model.dim, records)
        for title, text in texts.items():
            group.text(title, text)
        for file in files:
            group.file(Path(file))
        group.close()


def _logged(config: RunConfig, run: Path) -> LoggedRun:
    kept = kept_trackers(run)
    whole = run.resolve()
    study = whole.parent.parent if is_study(whole.parent.parent) else None
    return LoggedRun(
        folder=run,
        name=kept.get("name") or (f"{whole.parent.name}-{whole.name}" if study else whole.name),
        project=kept.get("project") or config.training.log_project or (study.name if study else PROJECT),
        identity="",
        loops=shown_loops(config.model.loops),
        config=config.model_dump(mode="json"),
    )


def _monitored(run: str | Path) -> str | None:
    """The last verdict that the scale monitor measured, and what it had to say."""
    checks = [record for record in read_metrics(run) if record["kind"] == "monitor"]
    verdicts = [check for check in checks if check.get("verdict")]
    if not verdicts:
        return None
    said = [text for check in checks if (text := check.get("warning") or check.get("note"))]
    words = f" It said: {said[-1]}" if said else ""
    return f"**{verdicts[-1]['verdict']}**, measured by the scale monitor at step {verdicts[-1]['step']:,}.{words}"
