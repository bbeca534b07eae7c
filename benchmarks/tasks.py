"""What benchmarks at every depth cost: one unroll for all depths, beside the deepest alone and a harness run per depth.

    python -m benchmarks.tasks                                    # laptop size, 200 questions, loops 1, 2, 4, 8
    python -m benchmarks.tasks --size published-44m --documents 24 --pairs 3

An offline task of questions with three answers each. Ours is what `loopscope evaluate tasks` does once a model is open
and the task is loaded: one unroll, and the harness's judgement at every depth. Beside it, in turn: the same with the
deepest depth alone, and each depth by itself (lm-evaluation-harness run once per depth). Ratios are medians over
rounds, and the scores of one unroll are compared with those of the runs by themselves.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.environment import environment, finish, table
from loopscope.config import recipe
from loopscope.data.tokenizers import ByteTokenizer
from loopscope.evaluation.tasks.depth_lm import DepthLM
from loopscope.evaluation.tasks.harness import harness_version, load_suite, run_harness
from loopscope.jobs.task_tokenizer import OwnTokenizer
from loopscope.model import LoopedTransformer
from tests.evaluation.tasks.fixtures import write_tasks


def main() -> None:
    """Time rounds of all three, print a table and one line of JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    depths = tuple(int(depth) for depth in options.loops.split(","))
    ways = {
        "all depths, one unroll": (depths,),
        "the deepest alone": (depths[-1:],),
        "a harness run per depth": tuple((depth,) for depth in depths),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        score = _scorer(options, write_tasks(Path(folder), options.documents))
        found = {name: [score(run) for run in runs] for name, runs in ways.items()}  # warm up, and to compare
        for _ in range(options.pairs):
            for name, runs in ways.items():
                seconds[name].append(sum(score(run).seconds for run in runs))
    together = found["all depths, one unroll"][0].results
    alike = together == {k: of for run in found["a harness run per depth"] for k, of in run.results.items()}
    one, deepest, apart = seconds.values()
    ratios = {
        "all_over_deepest": statistics.median(a / b for a, b in zip(one, deepest, strict=True)),
        "per_depth_over_all": statistics.median(a / b for a, b in zip(apart, one, strict=True)),
    }
    rows = [[name, f"{statistics.median(taken):.2f}", f"{min(taken):.2f}"] for name, taken in seconds.items()]
    table([f"loops {options.loops}, {options.size}", "seconds, median", "least"], rows)
    print()
    finish(
        {
            "benchmark": "tasks",
            "size": options.size,
            "documents": options.documents,
            "batch": options.batch,
            "loops": depths,
            "pairs": options.pairs,
            "harness": harness_version(),
            **{name: round(ratio, 3) for name, ratio in ratios.items()},
            "scores_equal": alike,
            "seconds": {name: [round(value, 3) for value in taken] for name, taken in seconds.items()},
        },
        environment(),
    )


class Scored(NamedTuple):
    """What one run of the harness found by depth, and how long it took once the task was loaded."""

    results: dict[int, Any]
    seconds: float


def _scorer(options: argparse.Namespace, questions: Path) -> Callable[[tuple[int, ...]], Scored]:
    """What scores a random model of the size at some depths, on a task that is loaded anew."""
    torch.manual_seed(0)
    config = recipe(options.size, "dense/rmsnorm").model
    model = LoopedTransformer(config).eval()
    tokenizer = OwnTokenizer(ByteTokenizer(), "\n")

    def score(depths: tuple[int, ...]) -> Scored:
        suite = load_suite(["colours"], questions)
        began = time.perf_counter()
        lm = DepthLM(model, tokenizer, lambda *given: (), depths, config.sequence, options.batch, "the model")
        found = {}
        for lm.depth in depths:
            found[lm.depth] = run_harness(lm, suite)["results"]
        return Scored(found, time.perf_counter() - began)

    return score


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="laptop")
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--loops", default="1,2,4,8")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
