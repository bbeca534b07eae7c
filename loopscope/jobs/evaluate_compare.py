"""Models side by side: one study, whose comparison is kept in its folder, or several runs, studies and model folders.

Runs read their own validation text. Where a model is among them that is no run, one text is read by all, each in its
own tokens (`shared_text`), and nothing is written into the folder of such a model.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from loopscope.config.nested import read_yaml, validated
from loopscope.data.config import DataConfig
from loopscope.evaluation.compare.comparison import compare
from loopscope.evaluation.compare.condition import same_windows
from loopscope.evaluation.compare.timing import seconds_per_token
from loopscope.interop.load import load
from loopscope.jobs.evaluate_depth import cut_depth, depth_before, depth_of, with_flops
from loopscope.jobs.machine import device_named
from loopscope.jobs.opened import OpenedModel, open_model, records_folder
from loopscope.jobs.shared_text import SharedText, shared_text
from loopscope.jobs.sources import SourceRun, completed_runs
from loopscope.jobs.text import TextWindows, hash_of, held_out, text_hash
from loopscope.recurrence import check_loops
from loopscope.results import Comparison, ModelEvaluation, to_json
from loopscope.results.layout import COMPARISON, CONFIG, is_study, write_text
from loopscope.training.progress import ProgressDisplay


def compare_study(
    study: str | Path | Sequence[str | Path],
    conditions: Sequence[str] | None = None,
    loops: int | None = None,
    *,
    time: bool = False,
    data: str | None = None,
    windows: int | None = None,
    length: int | None = None,
    batch: int = 16,
    device: str = "cpu",
    keep_in: str | Path | None = None,
) -> Comparison:
    """Compare conditions at every depth, paired by seed and by window; keep the comparison of one study in its folder.

    Runs that have no depth evaluation on this text, or none so deep, are evaluated first.

    Models of different tokenizers compare in bits per byte, on the whole validation text, which must be one.

    Args:
        study: a study, or several runs, studies and folders of models. A condition that two of them hold is named with
            its path. With a model that is no run, all read one text: `data`, else the first run's validation text,
            else `stdlib`.
        conditions: names of those to compare; None: all.
        loops: the deepest; twice each condition's trained depth by default.
        time: measure seconds per token at every depth, in this process, alternately.
        data: as `held_out` takes it, with `windows` and `length`.
        batch: windows at a time: memory grows with it, results do not change.
        device: auto, cpu, cuda, mps.
        keep_in: the folder in which the comparison is kept, made where it is not there, instead of a study's.

    Raises:
        ValueError: no study or run there, fewer than two conditions with completed runs, or text that cannot be read
            or is not the same.
    """
    if loops is not None:
        check_loops(loops)
    folder = records_folder(keep_in)
    sources = [study] if isinstance(study, str | Path) else list(study)
    where = device_named(device)
    runs = completed_runs(sources, conditions)
    asked = data, windows, length
    of_runs = [_data_of(run.run) for run in runs.kept if run.trained_here]
    alone = [run for run in runs.kept if not run.trained_here]
    one_text = _one_text(alone[0].run, of_runs, *asked) if alone else None
    texts: dict[str, TextWindows] = {}  # runs of one study share their text
    evaluations = []
    datas = []
    display = ProgressDisplay("compare", len(runs.kept), 0, transient=True)
    for number, run in enumerate(runs.kept):
        opened = open_model(run.run)  # one model in memory at a time
        on_its_own = one_text is None or (
            run.trained_here and asked == (None,) * 3 and opened.data == of_runs[0]
        )
        if one_text is not None and not on_its_own:
            text = one_text.windows(opened, length)
            key = hash_of([str(text.input_ids.tolist())])
        else:
            key = f"{opened.data} {getattr(getattr(opened.model, 'config', None), 'sequence', None)}"
            text = texts[key] if key in texts else held_out(opened, *asked)
        texts[key] = text
        with display:
            display.show(number, f"evaluate depth  {run.name}, {run.run.name}")
            measured = _evaluation(opened, text, loops, batch, where, keep=on_its_own)
        if not display.live:
            display.say(f"compare {number + 1}/{len(runs.kept)}  {run.run}: its depth curve is there")
        evaluations.append(replace(measured, condition=run.name))
        datas.append(opened.data)
    seconds: dict[str, tuple[float, ...]] = {}
    if time:
        if len(texts) > 1:
            raise ValueError(
                "time is measured on one text for all, and these runs have windows of their own; leave out --time"
            )
        ids = next(iter(texts.values())).input_ids[:batch].to(where)
        seconds = _seconds([run.run for run in runs.kept], evaluations, ids)
    if one_text is not None:
        evaluations = _seeded([replace(each, text_hash=one_text.hash) for each in evaluations], runs.kept)
    elif asked == (None,) * 3:  # each has read the whole of its text
        evaluations = _hashed(evaluations, datas)
    compared = compare(evaluations, seconds, runs.notes)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / COMPARISON, to_json(compared))
    elif len(sources) == 1 and is_study(sources[0]):
        write_text(Path(sources[0]) / COMPARISON, to_json(compared))
    return compared


def _data_of(run: Path) -> DataConfig:
    return validated(DataConfig, read_yaml(run / CONFIG).get("data") or {}, f"data of {run / CONFIG}")


def _one_text(
    alone: Path, of_runs: Sequence[DataConfig], data: str | None, windows: int | None, length: int | None
) -> SharedText:
    """What all read where a model is among them that is no run: `windows` are counted in that model's tokens."""
    text = shared_text(data, of_runs)
    return text if windows is None else text.start(open_model(alone), windows, length)


def _seeded(evaluations: Sequence[ModelEvaluation], runs: Sequence[SourceRun]) -> list[ModelEvaluation]:
    """Evaluations where a model that is no run, which has no seed, stands beside the first seed that all runs have."""
    seeds: dict[str, set[int]] = {}
    for run, evaluation in zip(runs, evaluations, strict=True):
        if run.trained_here:
            seeds.setdefault(run.name, set()).add(evaluation.seed or 0)
    shared = set.intersection(*seeds.values()) if seeds else set()
    seed = min(shared or {0})
    return [
        evaluation if run.trained_here else replace(evaluation, seed=seed)
        for run, evaluation in zip(runs, evaluations, strict=True)
    ]


def _hashed(
    evaluations: Sequence[ModelEvaluation], datas: Sequence[DataConfig | None]
) -> list[ModelEvaluation]:
    """Evaluations with what tells whether their text is one, where their windows differ."""
    if all(same_windows(evaluations[0], other) for other in evaluations[1:]):
        return list(evaluations)
    hashes = {data: text_hash(data) for data in dict.fromkeys(datas) if data is not None}
    return [
        replace(evaluation, text_hash=None if data is None else hashes[data])
        for evaluation, data in zip(evaluations, datas, strict=True)
    ]


def _evaluation(
    opened: OpenedModel,
    text: TextWindows,
    loops: int | None,
    batch: int,
    device: torch.device,
    keep: bool,
) -> ModelEvaluation:
    """What was measured of a run before, where it is of this text and deep enough; else measured now."""
    deepest = loops or 2 * opened.model.loops
    if (known := depth_before(opened, text, loops)) is not None:
        return with_flops(known, opened, text, deepest)
    return cut_depth(depth_of(opened, text, deepest, batch, device, keep), deepest)


def _seconds(
    runs: Sequence[Path], evaluations: Sequence[ModelEvaluation], ids: torch.Tensor
) -> dict[str, tuple[float, ...]]:
    """Measured seconds per token of the first seed of every condition, on the device of `ids`."""
    models = {}
    for run, evaluation in zip(runs, evaluations, strict=True):
        name = evaluation.condition or evaluation.name
        if name not in models:
            models[name] = (load(run).to(ids.device), len(evaluation.depth[0].per_loop))
    return seconds_per_token(models, ids)
