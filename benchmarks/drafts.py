"""What drafts by an early exit save: guesses that stand, and time, beside full depth alone.

    python -m benchmarks.drafts --run runs/raw                  # a trained run: guesses that stand, and what it saves
    python -m benchmarks.drafts --costs published-44m laptop    # random weights: what the parts of a round cost

The first alternates text with and without a draft, on held-out prompts, greedy and drawn at temperature 1; greedy
tokens are checked to be equal. The second times a step, a guess (one token to the draft's exit, read) and a check (all
tokens of a round through the loops behind it), in turn: medians, in steps. A round of n guesses that all stand makes
n + 1 tokens for n + 1 guesses and a check, which bounds what a draft can save at that size. The headline is the best of
what was seen.
"""

import argparse
import itertools
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import environment, finish, table
from benchmarks.text_cells import DTYPES, random_model, seconds_of
from loopscope.generation import Draft, Sampling, Settings, Stopping, generate_tokens, make_steps
from loopscope.generation.drafted_steps import DraftedSteps
from loopscope.jobs import held_out, open_model


def main() -> None:
    """Measure what the command line asks for; print tables and one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=None)
    parser.add_argument("--costs", nargs="+", default=[], help="sizes")
    parser.add_argument("--exits", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--guesses", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--dtypes", nargs="+", default=["fp32"], choices=DTYPES)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.run is None and not options.costs:
        parser.error("nothing to do: give --run FOLDER, --costs SIZE, or both")
    torch.set_num_threads(options.threads)
    with torch.no_grad():
        texts = [] if options.run is None else _texts(options)
        costs = [row for size in options.costs for row in _costs(size, options)]
    best = [row["faster"] for row in texts] or [row["at_best"] for row in costs]
    finish(
        {"benchmark": "drafts", "speedup_vs_full_depth": max(best), "texts": texts, "costs": costs},
        environment(dtype="+".join(options.dtypes)),
    )


def _texts(options: Any) -> list[dict[str, Any]]:
    """A trained run's text, with and without a draft in turn."""
    subject = open_model(options.run)
    ids = held_out(subject, None, max(options.batches), options.prompt).input_ids
    found = []
    cells = itertools.product((None, 1.0), options.batches, options.exits, options.guesses)
    for temperature, rows, exit_, count in cells:
        plain = Settings(Stopping(options.new_tokens), Sampling(temperature))
        drafted = replace(plain, draft=Draft(exit_, count))
        ways = [partial(generate_tokens, subject.model, ids[:rows], each) for each in (plain, drafted)]
        made = [way() for way in ways]
        assert temperature is not None or made[0].tokens == made[1].tokens, "greedy text is the same"
        ratios = [seconds_of(ways[0]) / seconds_of(ways[1]) for _ in range(options.pairs)]
        found.append(
            {
                "text": "greedy" if temperature is None else "drawn",
                "batch": rows,
                "exit": exit_,
                "guesses": count,
                "guessed_share": round(made[1].guessed_share, 3),
                "faster": round(statistics.median(ratios), 3),
                "range": [round(min(ratios), 3), round(max(ratios), 3)],
            }
        )
    print(f"{options.run.name}, {subject.model.loops} loops, {options.new_tokens} new tokens:")
    _print(found)
    return found


def _costs(size: str, options: Any) -> list[dict[str, Any]]:
    """What the parts of a round cost with random weights, in steps of full depth."""
    found = []
    for dtype in options.dtypes:
        model = random_model(size, 256).to(DTYPES[dtype])
        for rows in options.batches:
            for count in options.guesses:
                step, guess, check = _parts(model, rows, count, options)
                found.append(
                    {
                        "size": size,
                        "dtype": dtype,
                        "batch": rows,
                        "guesses": count,
                        "step_ms": round(1000 * step, 2),
                        "guess_steps": round(guess / step, 3),
                        "check_steps": round(check / step, 3),
                        "at_best": round((count + 1) * step / ((count + 1) * guess + check), 2),
                    }
                )
    print(f"\n{size}, a draft at loop {options.exits[0]}, random weights:")
    _print(found)
    return found


def _parts(model: Any, rows: int, count: int, options: Any) -> tuple[float, float, float]:
    """Median seconds of a step, of a guess and of a check of so many guesses."""
    ids = torch.randint(model.config.vocabulary, (rows, 128))
    pads = torch.zeros(rows, dtype=torch.int64)
    plain = make_steps(model, Settings(Stopping(1)), pads, 256)
    drafted = DraftedSteps(model, model.loops, Draft(options.exits[0], count), pads, 256)
    plain.prefill(ids)
    drafted.prefill(ids)

    def guesses() -> None:
        drafted.begin(torch.full((rows,), count))
        for _ in range(count + 1):
            drafted.guess(ids[:, 0])

    measured = []
    for _ in range(options.pairs + 1):
        step, guess = seconds_of(lambda: plain.step(ids[:, 0])), seconds_of(guesses) / (count + 1)
        measured.append((step, guess, seconds_of(drafted.verify)))
        drafted.accept(pads)
    step, guess, check = (
        statistics.median(part) for part in zip(*measured[1:], strict=True)
    )  # the first is warm
    return step, guess, check


def _print(rows: list[dict[str, Any]]) -> None:
    table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])


if __name__ == "__main__":
    main()
