"""Tokens per second of cached greedy generation, cell by cell, beside transformers' or beside computing anew.

    python -m benchmarks.generation --against-transformers          # fp32, two threads: minutes
    python -m benchmarks.generation --against-transformers --dtypes fp32 bf16 --threads 1 2 --sizes laptop
    python -m benchmarks.generation --against-anew                  # 256 new tokens
    python -m benchmarks.generation --against-transformers --compile --sizes laptop   # and ours with compile=True

A cell is a size, a number format, a batch, a length of the prompts and a number of threads. Weights are random and
positions rotary. The other side, in `--against-transformers`: `generate` of the same weights as `loopscope export`
gives them, and of a Llama of loops × layers layers of the same widths, each with a dynamic and a static cache. All ways
make the same number of tokens, prompts included in the time; ways take turns, and a cell's figure is the median of the
rounds' ratios to the fastest of the other ways. `speedup_vs_transformers` (or `speedup_vs_anew`) is the smallest.
With `--compile` there is one way more, whose compiling is told apart (seconds, from PyTorch's cache on disk where it
has it) and whose ratios are to the same other way and to ours.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.environment import environment, finish
from loopscope.config import recipe
from loopscope.generation import Settings, Stopping, generate_tokens
from loopscope.model import LoopedTransformer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Way = Callable[[], Any]


def compare_cells(other: str) -> None:
    """Measure every cell that the command line names; print a table and one line of JSON.

    Args:
        other: transformers, or anew.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(f"--against-{other}", action="store_true")
    parser.add_argument("--sizes", nargs="+", default=["laptop", "published-44m"])
    parser.add_argument("--dtypes", nargs="+", default=["fp32"], choices=DTYPES)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompts", type=int, nargs="+", default=[16, 128])
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--new-tokens", type=int, default=256 if other == "anew" else 32)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="measure compile=True too")
    options = parser.parse_args()
    measures = (options.dtypes, options.threads, options.batches, options.prompts)
    cells = []
    for size, (dtype, threads, batch, prompt) in itertools.product(
        options.sizes, itertools.product(*measures)
    ):
        torch.set_num_threads(threads)
        model = random_model(size, prompt + options.new_tokens).to(DTYPES[dtype])
        ids = torch.randint(model.config.vocabulary, (batch, prompt))
        ways = _theirs(model, ids, options.new_tokens) if other == "transformers" else {}
        cell = {"size": size, "dtype": dtype, "threads": threads, "batch": batch, "prompt": prompt}
        cells.append({**cell, **_measured(model, ids, ways, options)})
        _row(cells[-1], heading=len(cells) == 1)
    finish(
        {
            "benchmark": "generation",
            "against": other,
            "new_tokens": options.new_tokens,
            "pairs": options.pairs,
            f"speedup_vs_{other}": min(cell["faster"] for cell in cells),
            **_compiled_headline(cells, other),
            "cells": cells,
        },
        environment(dtype="+".join(options.dtypes)),
    )


def random_model(size: str, length: int) -> LoopedTransformer:
    """Return a model of a recipe's size for texts of a length, with weights as training begins with."""
    torch.manual_seed(0)
    settings = {"positions": "rotary", "sequence": length}
    return LoopedTransformer(recipe(size, over={"model": settings}).model).eval()


def _theirs(model: LoopedTransformer, ids: Tensor, new_tokens: int) -> dict[str, Way]:
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    from loopscope.interop.huggingface.export.exported_model import as_exported

    config = model.config
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.dim,
            intermediate_size=config.width,
            num_hidden_layers=config.layers * config.loops,
            num_attention_heads=config.heads,
            max_position_embeddings=config.sequence,
            tie_word_embeddings=True,
        )
    )
    models: dict[str, Any] = {
        "export": as_exported(model),
        "llama": llama.eval().to(model.token_embedding.weight.dtype),
    }
    mask = torch.ones_like(ids)

    def way(their: Any, kind: str) -> Way:
        asked = GenerationConfig(
            max_new_tokens=new_tokens, do_sample=False, pad_token_id=0, cache_implementation=kind
        )
        their.generation_config = asked
        return lambda: their.generate(ids, attention_mask=mask, generation_config=asked)

    return {
        f"{name} {kind}": way(their, kind) for name, their in models.items() for kind in ("dynamic", "static")
    }


def _measured(model: LoopedTransformer, ids: Tensor, others: dict[str, Way], options: Any) -> dict[str, Any]:
    """Medians over rounds in which every way runs once."""
    settings = Settings(Stopping(options.new_tokens))
    ways: dict[str, Way] = {"ours": lambda: generate_tokens(model, ids, settings), **others}
    if not others:
        ways["anew"] = lambda: generate_tokens(model, ids, replace(settings, cache=False))
    began = time.perf_counter()
    if options.compile:
        quick = replace(settings, compile=True)
        ways["compiled"] = lambda: generate_tokens(model, ids, quick)
        ways["compiled"]()
    compiling = time.perf_counter() - began
    made = {name: way() for name, way in ways.items()}  # and warm
    for name, text in made.items():
        if isinstance(text, Tensor):
            assert text.shape[1] == ids.shape[1] + options.new_tokens, f"{name} stopped early"
    rounds = []
    for number in range(options.pairs):
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        rounds.append({name: seconds_of(ways[name]) for name in order})
    ratios = {name: [spent[name] / spent["ours"] for spent in rounds] for name in ways if name != "ours"}
    best = min(
        (name for name in ratios if name != "compiled"), key=lambda name: statistics.median(ratios[name])
    )
    tokens = len(ids) * options.new_tokens
    rates = {name: round(tokens / statistics.median(spent[name] for spent in rounds), 1) for name in ways}
    found = {**_ratios("", ratios[best]), "best": best, "tokens_per_second": rates}
    if not options.compile:
        return found
    beside = [spent[best] / spent["compiled"] for spent in rounds]
    plain = [spent["ours"] / spent["compiled"] for spent in rounds]
    return {
        **found,
        **_ratios("compiled_", beside),
        **_ratios("compiled_vs_ours_", plain),
        "compile_seconds": round(compiling, 1),
    }


def _ratios(prefix: str, ratios: list[float]) -> dict[str, Any]:
    return {
        f"{prefix}faster": round(statistics.median(ratios), 3),
        f"{prefix}range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def _compiled_headline(cells: list[dict[str, Any]], other: str) -> dict[str, float]:
    found = [cell["compiled_faster"] for cell in cells if "compiled_faster" in cell]
    return {f"compiled_speedup_vs_{other}": min(found)} if found else {}


def seconds_of(way: Way) -> float:
    """Return the seconds that a way takes once."""
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def _row(cell: dict[str, Any], heading: bool) -> None:
    """Print a cell as soon as it is known."""
    rates = cell["tokens_per_second"]
    told = ("size", "dtype", "threads", "batch", "prompt")
    row = [str(cell[name]) for name in told]
    row += [
        *(f"{rate:.0f}" for rate in rates.values()),
        f"{cell['faster']:.2f}",
        "{}-{}".format(*cell["range"]),
    ]
    more = ("compiled_faster", "compiled_range", "compiled_vs_ours_faster", "compile_seconds")
    known = [name for name in more if name in cell]
    row += [str(cell[name]).strip("[]").replace(", ", "-") for name in known]
    headings = [*told, *(f"{name}/s" for name in rates), "faster", "range", *known]
    if heading:
        print("  ".join(headings))
    print("  ".join(word.rjust(len(head)) for word, head in zip(row, headings, strict=True)), flush=True)
