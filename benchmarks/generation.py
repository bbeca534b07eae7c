"""What the cache saves, and what exits per token save and cost under each way to fill what they leave out.

    python -m benchmarks.generation                                # about ten minutes on two cores
    python -m benchmarks.generation --steps 40 --windows 4 --pairs 1 --new-tokens 64   # to see that it runs
    python -m benchmarks.generation --against-transformers         # beside theirs: benchmarks.text_cells
    python -m benchmarks.generation --against-anew                 # the cache alone, cell by cell

Trains the laptop model with rotary positions on windows long enough for prompt and new tokens (kept in --out; a second
call finds it). Then, on held-out text: greedy generation cached against computed anew, alternating, with equal tokens
checked; and exits per token. Their thresholds are chosen on other windows than those reported, for --target mean
loops. Quality is read with the text's own tokens (teacher-forced): perplexity of the exits taken, and how often the
likeliest token is full depth's. Time is greedy generation of --batch rows, alternating with full depth. The headline of
the JSON line is what the cache saves after the prompt where it saves least.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.environment import environment, finish, table
from benchmarks.text_cells import compare_cells
from loopscope import AbstractLoopedLM
from loopscope.config import recipe
from loopscope.evaluation import AbstractExitRule, build_rule
from loopscope.generation import (
    STRATEGIES,
    ForcedReading,
    Settings,
    Stopping,
    force,
    generate_tokens,
    make_steps,
)
from loopscope.jobs import TextWindows, execute, held_out, open_model
from loopscope.jobs.generate import exit_rule
from loopscope.results import newest_checkpoint


def main() -> None:
    """Train if needed, measure, print tables and one line of JSON."""
    if asked := {"--against-transformers", "--against-anew"} & set(sys.argv[1:]):
        compare_cells(asked.pop().removeprefix("--against-"))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-generation"))
    parser.add_argument("--size", default="laptop")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--prompts", type=int, nargs="+", default=[16, 128], help="tokens before the new ones"
    )
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8, help="rows that generate together")
    parser.add_argument(
        "--windows", type=int, default=16, help="held-out windows, half to choose thresholds on"
    )
    parser.add_argument("--rules", nargs="+", default=["max-probability", "direction-step"])
    parser.add_argument("--target", type=float, default=2.5, help="mean loops that thresholds are chosen for")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    length = max(options.prompts) + options.new_tokens
    out = options.out / f"{options.size}-{length}-{options.steps}"
    if newest_checkpoint(out) is None:
        execute(_config(options.size, length, options.steps), out, quiet=False)
    subject = open_model(out)
    held = held_out(subject, None, options.windows, length)
    with torch.no_grad():
        speed = [_against_anew(subject.model, held, prompt, options) for prompt in options.prompts]
        exits = _exits(subject.model, held, options)
    finish(
        {
            "benchmark": "generation",
            "size": options.size,
            "new_tokens": options.new_tokens,
            "pairs": options.pairs,
            "speedup_vs_baseline": min(found["faster"] for found in speed),
            "cached": speed,
            "exits": exits,
        },
        environment(),
    )


def _config(size: str, length: int, steps: int) -> Any:
    base = recipe(size)
    tokens = base.training.batch * base.model.sequence
    return recipe(
        size,
        over={
            "model": {"positions": "rotary", "sequence": length},
            "training": {"steps": steps, "batch": max(1, tokens // length), "evaluate_every": steps},
        },
    )


def _against_anew(model: AbstractLoopedLM, held: TextWindows, prompt: int, options: Any) -> dict[str, Any]:
    """One row, cached and computed anew, in pairs."""
    ids = held.input_ids[:1, :prompt]
    cached = Settings(Stopping(options.new_tokens))
    anew = replace(cached, cache=False)
    exact = generate_tokens(model, ids, cached) == generate_tokens(model, ids, anew)
    times = [(_timed(model, ids, cached), _timed(model, ids, anew)) for _ in range(options.pairs)]
    ratio = statistics.median(slow / fast for fast, slow in times)
    fast, slow = (statistics.median(side) for side in zip(*times, strict=True))
    if prompt == options.prompts[0]:
        print(f"One row, {options.new_tokens} new tokens, {model.loops} loops:")
    table(
        ["prompt", "cached, ms/token", "anew, ms/token", "faster", "same tokens"],
        [
            [
                str(prompt),
                *(f"{1000 * t / options.new_tokens:.2f}" for t in (fast, slow)),
                f"{ratio:.1f}",
                str(exact),
            ]
        ],
    )
    return {"prompt": prompt, "faster": round(ratio, 2), "exact": exact, "cached_seconds": round(fast, 3)}


def _exits(model: AbstractLoopedLM, held: TextWindows, options: Any) -> list[dict[str, Any]]:
    """Every rule under every strategy, beside full depth."""
    prompt, half = max(options.prompts), len(held) // 2
    chosen_on, told_on = held.part(0, half), held.part(half, len(held))
    plain = Settings(Stopping(options.new_tokens))

    def read(part: TextWindows, settings: Settings) -> ForcedReading:
        return force(model, part.input_ids, part.labels, settings, prompt)

    rows_of_text = told_on.input_ids[: options.batch, :prompt]
    full, rows, figures = read(told_on, plain), [], []
    base = _timed(model, rows_of_text, plain)
    rows.append(
        [
            "full depth",
            "",
            f"{model.loops:.2f}",
            f"{_perplexity(full):.2f}",
            "",
            "",
            "1.00",
            _mib(model, rows_of_text, plain),
        ]
    )
    for name in options.rules:
        threshold = _threshold(
            name, model, options.target, lambda rule: read(chosen_on, replace(plain, rule=rule))
        )
        rule = exit_rule(name, threshold, model)
        for missing in STRATEGIES:
            settings = replace(plain, rule=rule, missing=missing)
            found = read(told_on, settings)
            pairs = [
                (_timed(model, rows_of_text, plain), _timed(model, rows_of_text, settings))
                for _ in range(options.pairs)
            ]
            faster = statistics.median(whole / early for whole, early in pairs)
            free = generate_tokens(model, rows_of_text, settings)
            rows.append(
                [
                    name,
                    missing,
                    f"{found.mean_loops:.2f}",
                    f"{_perplexity(found):.2f}",
                    f"{found.agreement(full):.1%}",
                    f"{free.mean_loops:.2f}",
                    f"{faster:.2f}",
                    _mib(model, rows_of_text, settings),
                ]
            )
            figures.append(
                {
                    "rule": name,
                    "threshold": threshold,
                    "missing": missing,
                    "mean_loops": round(found.mean_loops, 3),
                    "perplexity": round(_perplexity(found), 3),
                    "full_depth_perplexity": round(_perplexity(full), 3),
                    "agreement": round(found.agreement(full), 4),
                    "faster": round(faster, 3),
                }
            )
    what = f"{len(told_on)} windows, prompt {prompt}; time for {len(rows_of_text)} rows"
    print(f"\nExits per token, {what} (full depth {base:.2f} s):")
    headings = [
        "rule",
        "missing",
        "mean loops",
        "perplexity",
        "agreement",
        "loops when free",
        "faster",
        "cache MiB",
    ]
    table(headings, rows)
    return figures


def _threshold(
    name: str, model: AbstractLoopedLM, target: float, read: Callable[[Any], ForcedReading]
) -> float:
    """By bisection: the threshold whose mean loops are nearest to the target on the windows to choose on."""
    rule = build_rule(name)
    assert isinstance(rule, AbstractExitRule), name
    low, high = rule.low, rule.high if rule.high < 1e6 else 64.0
    for _ in range(8):
        middle = (low + high) / 2
        deep = read(exit_rule(name, middle, model)).mean_loops > target
        # A rule that leaves above its threshold runs deeper at a higher one; below, the other way round.
        if deep == (rule.leaves == "above"):
            high = middle
        else:
            low = middle
    return (low + high) / 2


def _timed(model: AbstractLoopedLM, ids: Tensor, settings: Settings) -> float:
    began = time.perf_counter()
    generate_tokens(model, ids, settings)
    return time.perf_counter() - began


def _perplexity(found: ForcedReading) -> float:
    return float(found.losses.double().mean().exp())


def _mib(model: AbstractLoopedLM, ids: Tensor, settings: Settings) -> str:
    """Size of the cache for these rows, prompt and new tokens."""
    capacity = ids.shape[1] + settings.stopping.new_tokens
    steps: Any = make_steps(model, settings, torch.zeros(len(ids), dtype=torch.int64), capacity)
    steps.prefill(ids)
    return f"{steps.store.bytes() / 2**20:.1f}"


if __name__ == "__main__":
    main()
