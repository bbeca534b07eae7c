"""Benchmarks of a model at several depths: from a path and names of tasks to a record beside the model."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from loopscope.evaluation.tasks.harness import TaskSuite, harness_version, load_suite, run_harness
from loopscope.evaluation.tasks.outcome import task_scores
from loopscope.generation.padding import pad
from loopscope.interop.working_depth import check_depth
from loopscope.jobs.evaluate import checkpoint_hash, run_sections, tokens_trained
from loopscope.jobs.generate import generate
from loopscope.jobs.machine import device_named, placed
from loopscope.jobs.opened import OpenedModel, open_model, parameter_count
from loopscope.jobs.task_tokenizer import OwnTokenizer, TheirTokenizer, task_tokenizer
from loopscope.recurrence import check_loops
from loopscope.results import TaskEvaluation, TaskScores, load_tasks, provenance, to_json
from loopscope.results.faults import in_words
from loopscope.results.layout import PREVIOUS_TASKS, TASKS, write_text

if TYPE_CHECKING:
    from loopscope.evaluation.tasks.depth_lm import Writer

USUAL_LONGEST = 2048
"""Tokens that a model reads where nothing says, as the harness has it."""
_LENGTHS = ("n_positions", "max_position_embeddings", "n_ctx")
"""What configs of transformers call it, in the harness's order."""


@dataclass(frozen=True)
class TaskSettings:
    """What is asked of a model.

    Attributes:
        tasks: names of tasks, groups and tags of lm-evaluation-harness or of `include_path`, also with `*`.
        loops: depths; None: powers of two up to twice the trained depth, and it and twice it.
        fewshot: examples before every question; None: each task's own number.
        limit: documents of each task, the first ones; None: all.
        include_path: a folder with tasks of one's own in YAML.
        length: tokens that a request may have; None: what the model was made for.
        prefix: a text of one token that stands before a text with nothing before it; None: BOS, else EOS.
    """

    tasks: tuple[str, ...]
    loops: tuple[int, ...] | None = None
    fewshot: int | None = None
    limit: int | None = None
    include_path: str | Path | None = None
    length: int | None = None
    prefix: str | None = None


def open_tasks(settings: TaskSettings) -> TaskSuite:
    """Load the tasks that are asked for, with their data: before any model.

    Raises:
        ValueError: numbers out of range, lm-evaluation-harness is not installed, a name that it does not know, or data
            that cannot be had.
    """
    for loops in settings.loops or ():
        check_loops(loops)
    for name, least in (("fewshot", 0), ("limit", 1), ("length", 2)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; it must be a whole number from {least} up")
    if not settings.tasks:
        raise ValueError(
            "tasks is empty; give names separated by commas, such as --tasks arc_easy,lambada_openai"
        )
    return load_suite(settings.tasks, settings.include_path, settings.fewshot, settings.limit)


def measure_tasks(
    path: str | Path,
    suite: TaskSuite,
    settings: TaskSettings,
    *,
    batch: int = 16,
    device: str = "cpu",
    keep_in: str | Path | None = None,
    progress: Callable[[str, int, int], object] = lambda what, done, of: None,
) -> TaskEvaluation:
    """Score one model on tasks at every depth asked for, and keep it beside the model.

    Likelihoods of all depths come from one unroll; text is written at each depth.

    Args:
        suite: `open_tasks(settings)`.
        batch: requests at a time: memory grows with it, results do not change.
        device: auto, cpu, cuda, mps.
        keep_in: the folder in which it is kept instead.
        progress: called with what is being done, how many requests are done, and of how many.

    Raises:
        ValueError: no model there, a depth that it cannot run at, a tokenizer without what a task needs.
    """
    from loopscope.evaluation.tasks.depth_lm import DepthLM

    where = device_named(device)
    opened = open_model(path, keep_in)
    tokenizer = task_tokenizer(opened, settings.prefix)
    depths = tuple(sorted(set(settings.loops or usual_depths(opened.model.loops))))
    for depth in depths:
        check_depth(opened.model, depth)
    longest = settings.length or _longest(opened, tokenizer)
    limit = opened.model.positions_limit
    if limit is not None and longest > limit:
        raise ValueError(
            f"length is {longest}; {opened.name} has {limit} learned positions: give at most so many"
        )
    if opened.keeps and opened.kept_at.is_dir():
        load_tasks(opened.kept_at)  # one that cannot be read is said before anything is scored
    placed(opened.model, where)
    lm = DepthLM(
        opened.model, tokenizer, _writer(opened, tokenizer), depths, longest, batch, opened.name, progress
    )
    found: dict[int, dict[str, Any]] = {}
    for depth in depths:
        lm.depth = depth
        found[depth] = run_harness(lm, suite)
    sections = run_sections(opened.path)
    evaluation = TaskEvaluation(
        name=opened.name,
        condition=sections.get("condition"),
        size=sections.get("size"),
        seed=(sections.get("training") or {}).get("seed"),
        trained_loops=opened.model.loops,
        parameters=parameter_count(opened.model),
        tokens_trained=tokens_trained(opened.path),
        longest=longest,
        tasks=task_scores(found, suite.kinds, lm.cut, not lm.apart, harness_version()),
        provenance=provenance(str(where), torch.get_num_threads()),
        weights=checkpoint_hash(opened.path),
        fingerprint=opened.fingerprint,
    )
    for scores in evaluation.tasks:
        if scores.cut:
            warnings.warn(
                f"{scores.task}: {scores.cut:,} requests are longer than the {longest} tokens that {opened.name} reads "
                "and lost the beginning of their context (--length)",
                stacklevel=2,
            )
    keep_tasks(opened, evaluation)
    return evaluation


def usual_depths(trained: int) -> tuple[int, ...]:
    """Return powers of two up to twice the trained depth, and it and twice it.

    Example:
        >>> usual_depths(6)
        (1, 2, 4, 6, 8, 12)
    """
    powers = {2**n for n in range((2 * trained).bit_length())}
    return tuple(sorted({*powers, trained, 2 * trained}))


def keep_tasks(opened: OpenedModel, evaluation: TaskEvaluation) -> Path | None:
    """Keep benchmarks beside their model, for reports, with other tasks' that are there; None where it is no folder.

    Those of another model make room, under the name `PREVIOUS_TASKS`, with a warning. Where nothing can be kept a
    warning says so: what was measured is not lost.
    """
    if not (opened.keeps and opened.kept_at.is_dir()):
        return None
    path = opened.kept_at / TASKS
    try:
        kept = load_tasks(path)
        if kept is not None and (changed := _changed(kept, evaluation)):
            write_text(path.with_name(PREVIOUS_TASKS), path.read_text(encoding="utf-8"))
            there = ", ".join(f"{key} {getattr(kept, key)!r}" for key in changed)
            warnings.warn(
                f"{path} was of another model ({there}); it is kept as {PREVIOUS_TASKS}", stacklevel=2
            )
            kept = None
        whole = replace(evaluation, tasks=_joined(kept.tasks if kept else (), evaluation.tasks))
        write_text(path, to_json(whole))
    except OSError as error:
        warnings.warn(
            f"the benchmarks of {opened.name} were measured but not kept: {in_words(error)}", stacklevel=2
        )
        return None
    return opened.written(path)


_SAME = ("condition", "seed", "trained_loops", "parameters", "tokens_trained")
"""Benchmarks with another of these are of another model."""
_SAME_WHERE_KNOWN = ("weights", "fingerprint")


def _changed(kept: TaskEvaluation, now: TaskEvaluation) -> list[str]:
    """What differs between two models that benchmarks were scored of."""
    known = [key for key in _SAME_WHERE_KNOWN if getattr(kept, key) and getattr(now, key)]
    return [key for key in (*_SAME, *known) if getattr(kept, key) != getattr(now, key)]


def _joined(kept: Sequence[TaskScores], new: Sequence[TaskScores]) -> tuple[TaskScores, ...]:
    """Tasks that were there, the new ones in the place of those of their name, the others after them."""
    now: Mapping[str, TaskScores] = {scores.task: scores for scores in new}
    return tuple({**{scores.task: scores for scores in kept}, **now}.values())


def _longest(opened: OpenedModel, tokenizer: OwnTokenizer | TheirTokenizer) -> int:
    """Tokens that a model was made for: its trained length, or what its config or its tokenizer says."""
    own = getattr(getattr(opened.model, "config", None), "sequence", None)
    config = getattr(getattr(opened.model, "module", None), "config", None)
    config = getattr(config, "text_config", None) or config
    said = (own, *(getattr(config, name, None) for name in _LENGTHS))
    found = next((value for value in said if isinstance(value, int) and value > 0), None)
    if found is None and isinstance(tokenizer, TheirTokenizer):
        most = tokenizer.tokenizer.model_max_length
        found = int(most) if most < 10**9 else None  # what stands for no limit is larger
    return found or opened.model.positions_limit or USUAL_LONGEST


def _writer(opened: OpenedModel, tokenizer: OwnTokenizer | TheirTokenizer) -> "Writer":
    """What goes on with texts at a depth."""

    def write(rows: list[list[int]], loops: int, settings: Mapping[str, Any], seed: int) -> Sequence[str]:
        ids, mask = pad(rows)
        seeded = {"seed": seed} if "temperature" in settings else {}
        made = generate(
            opened.model, ids, attention_mask=mask, tokenizer=tokenizer, loops=loops, **settings, **seeded
        )
        return made.texts

    return write
