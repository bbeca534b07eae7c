"""lm-evaluation-harness: whether it is there, its tasks by name, and one judgement of a model on them.

What `simple_evaluate` does before it calls `evaluate` (seeds, few-shot examples) is done here, once for all depths, and
not what it does after it: describing the machine takes seconds each time.
"""

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from loopscope.guards import exchanged, same_random_numbers
from loopscope.optional_packages import require

BOOTSTRAP = 1000
"""Draws for the standard error of a metric that is no mean (perplexity, F1); the harness's own 100,000 take minutes."""
SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}
"""The harness's own defaults: the same examples stand before the same questions."""
_OFFLINE = (
    "offline",
    "connection",
    "reach",
    "resolve",
    "network",
    "localentrynotfound",
    "max retries",
    "timed out",
)
"""Words in an error of a data set that could not be had."""
_LOGGERS = ("lm_eval", "datasets", "huggingface_hub")


@dataclass(frozen=True)
class TaskSuite:
    """Tasks, loaded: their data is there.

    Attributes:
        loaded: tasks by name, and groups, as the harness loads them.
        tops: names in the order asked for, groups and tasks.
        fewshot: examples before every question; None: each task's own number.
        limit: documents of each task; None: all.
    """

    loaded: Mapping[str, Any]
    tops: tuple[str, ...]
    fewshot: int | None = None
    limit: int | None = None

    @property
    def kinds(self) -> dict[str, str]:
        """The harness's output type of every task."""
        return {name: str(task.OUTPUT_TYPE) for name, task in self.loaded["tasks"].items()}


def require_harness() -> None:
    """Raise ValueError where lm-evaluation-harness is not installed, with how to install it."""
    require("evaluate tasks", "lm_eval")


def load_suite(
    names: Sequence[str],
    include_path: str | Path | None = None,
    fewshot: int | None = None,
    limit: int | None = None,
) -> TaskSuite:
    """Find tasks by name, and load them with their data.

    Args:
        names: of tasks, groups and tags of the harness or of `include_path`, also with `*`; or paths of YAML files.
        include_path: a folder with tasks of one's own in YAML.
        fewshot: examples before every question; None: each task's own number.
        limit: documents of each task, the first ones; None: all.

    Raises:
        ValueError: the harness is not installed, a name that it does not know, data that cannot be had (no network,
            say), or a task that runs code of the model's or reads pictures.
    """
    require_harness()
    folder = None if include_path is None else Path(include_path)
    if folder is not None and not folder.is_dir():
        raise ValueError(f"include-path is {folder}, which is no folder; name one that holds tasks as YAML")
    with quiet_harness(also_errors=not sys.stderr.isatty()):
        manager, tops = _resolved(names, folder)
        loaded = _load(manager, tops)
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            what = (
                "runs code that the model writes" if getattr(task, "UNSAFE_CODE", False) else "shows pictures"
            )
            raise ValueError(f"task {name} {what}, which loopscope evaluate tasks does not do; leave it out")
    return TaskSuite(loaded, tuple(tops), fewshot, limit)


def run_harness(lm: Any, suite: TaskSuite) -> dict[str, Any]:
    """Return what the harness finds of a model on tasks, as its `evaluate` returns it.

    Requests know nothing of the model that answers them, so the harness makes them once for a suite.

    Args:
        lm: a model as the harness takes one.
    """
    from lm_eval.evaluator import evaluate

    with quiet_harness(), same_random_numbers(torch.device("cpu")), _requests_once(suite), _templates_once():
        _prepare(suite)
        found: dict[str, Any] = evaluate(
            lm,
            task_dict=dict(suite.loaded),
            limit=suite.limit,
            bootstrap_iters=BOOTSTRAP,
            log_samples=False,
        )
    return found


@contextmanager
def _requests_once(suite: TaskSuite) -> Iterator[None]:
    """Let tasks that have made their requests answer with these, without the answers that came before."""
    with ExitStack() as stack:
        for task in suite.loaded["tasks"].values():
            requests = getattr(task, "_instances", None) or ()  # none yet, before the harness made them
            for request in requests:
                request.resps, request.filtered_resps = [], {}
            if requests:
                stack.enter_context(exchanged(task, lambda build: lambda **_: None, "build_all_requests"))
        yield


@contextmanager
def _templates_once() -> Iterator[None]:
    """Let the harness compile a template once, not for every document: most of what it does on small models."""
    from lm_eval import utils

    with exchanged(utils.env, lru_cache(1000), "from_string"):
        yield


def harness_version() -> str:
    """Return the version of lm-evaluation-harness that is installed."""
    return metadata.version("lm_eval")


def _prepare(suite: TaskSuite) -> None:
    """Seeds and numbers of examples, as `simple_evaluate` sets them."""
    random.seed(SEEDS["random"])
    np.random.seed(SEEDS["numpy"])
    torch.manual_seed(SEEDS["torch"])
    for task in suite.loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if suite.fewshot is not None and own != 0:  # a task that says 0 means it
            task.set_config(key="num_fewshot", value=suite.fewshot)
        elif own is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=SEEDS["fewshot"])


def _resolved(names: Sequence[str], folder: Path | None) -> tuple[Any, list[str]]:
    """The harness's index of tasks, and what was asked for in it. Its own thousands are read only where needed."""
    from lm_eval.tasks import TaskManager

    def found(manager: Any, name: str) -> list[str]:
        if "*" in name:
            return [str(match) for match in manager.match_tasks([name])]
        is_file = name.endswith((".yaml", ".yml")) and Path(name).is_file()
        return [name] if is_file or name in manager.task_index else []

    manager = TaskManager(include_path=folder, include_defaults=False) if folder else None
    if manager is None or not all(found(manager, name) for name in names):
        manager = TaskManager(include_path=folder)
    tops: list[str] = []
    for name in names:
        matches = found(manager, name)
        if not matches:
            raise ValueError(_unknown(name, list(manager.task_index), folder))
        tops += [match for match in matches if match not in tops]
    return manager, tops


def _unknown(name: str, known: list[str], folder: Path | None) -> str:
    near = (
        get_close_matches(name, known, n=3, cutoff=0.6)
        or [each for each in known if each.startswith(name)][:3]
    )
    meant = f"; did you mean {', '.join(map(repr, near))}?" if near else ";"
    where = "" if folder is None else f" nor of {folder}"
    return (
        f"task {name!r} is none of the {len(known):,} of lm-evaluation-harness {harness_version()}{where}{meant} "
        "lm-eval ls tasks lists them, and --include-path adds a folder of your own"
    )


def _load(manager: Any, names: Sequence[str]) -> dict[str, Any]:
    """Load one by one, to say which cannot be; then check together, as the harness does."""
    built: list[Any] = []
    for name in names:
        try:
            one = manager.load([name])
        except Exception as error:  # whatever a task's own code, its template or a library of data raises
            raise ValueError(_not_loaded(name, error)) from error
        inside = {task for group in one["groups"].values() for task in group.get_all_tasks()}
        below = {child for children in one["group_map"].values() for child in children}
        built += [group for key, group in one["groups"].items() if key not in below]
        built += [task for task in one["tasks"].values() if task not in inside]
    loaded: dict[str, Any] = manager.load(built)
    return loaded


def _not_loaded(name: str, error: Exception) -> str:
    chain, each = [], error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__ or each.__context__  # type: ignore[assignment]
    said = " ".join(f"{type(each).__name__} {each}" for each in chain).lower()
    cause = " ".join(str(error).split())[:200]
    if any(word in said for word in _OFFLINE):
        return (
            f"task {name} needs data from the Hugging Face hub, which is not in the cache, and it cannot be reached "
            f"({type(error).__name__}: {cause}); run this once where there is a network, or write a task of local "
            "files and name its folder with --include-path"
        )
    if isinstance(error, ModuleNotFoundError):
        return f"task {name} needs the package {error.name}, which is not installed: pip install {error.name}"
    return f"task {name} could not be loaded ({type(error).__name__}: {cause})"


@contextmanager
def quiet_harness(also_errors: bool = True) -> Iterator[None]:
    """Keep what the harness prints, counts and logs to itself; warnings of Loopscope's own come out afterwards.

    Args:
        also_errors: what goes to standard error too: its bars.
    """
    levels = {logger: logger.level for logger in map(logging.getLogger, _LOGGERS)}
    before = os.environ.get("DISABLE_MULTIPROC")
    with ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w"))
        stack.enter_context(redirect_stdout(nowhere))
        if also_errors:
            stack.enter_context(redirect_stderr(nowhere))
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        for logger in levels:
            logger.setLevel(logging.ERROR)
        os.environ["DISABLE_MULTIPROC"] = "1"  # a bootstrap does not fork a process that holds a model
        try:
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)
            if before is None:
                del os.environ["DISABLE_MULTIPROC"]
            else:
                os.environ["DISABLE_MULTIPROC"] = before
    for warning in caught:
        if "loopscope" in Path(warning.filename).parts:
            warnings.warn(str(warning.message), stacklevel=3)
