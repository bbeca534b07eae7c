"""What a cache saves in text of models of others: tokens per second over it, and computed anew, alternating.

    python -m benchmarks.foreign_text
    python -m benchmarks.foreign_text hrm --dim 64 --new-tokens 32 --pairs 1     # to see that it runs

Random models: the real code of families that transformers has, a model written for transformers with Ouro's parts, and
LoopLM's structure, which has no cache of its own and is read layer by layer over one of ours. Greedy text of one row
after a prompt, of which every pair makes the whole:

    cached    loopscope.generate
    anew      the same with cache=False: Loopscope follows the forward through its loops
    theirs    the family's own generate(use_cache=False), where it has one: the whole forward, run once a token

`over anew` and `over theirs` are medians of the pairs' ratios. `same` says that all texts of a row were equal. The
headline of the JSON line is what the cache saves over the quicker of the two where it saves least.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import loopscope
from benchmarks.environment import environment, finish, table
from tests.interop import lookalikes
from tests.interop.lookalikes import parts
from tests.interop.lookalikes.cached import CachedOuroConfig, CachedOuroForCausalLM

VOCABULARY = 1024
HEADINGS = "model, over, loops, cached tok/s, anew tok/s, over anew, theirs tok/s, over theirs, same"


def dory(dim: int, length: int) -> nn.Module:
    """Two layers that loop three times between one before and one behind."""
    from transformers import DoryConfig, DoryForCausalLM

    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": dim,
        "intermediate_size": 3 * dim,
        "num_hidden_layers": 4,
    }
    loops = {"n_input_layers": 1, "n_output_layers": 1, "n_recurrent_loops": 3, "sliding_window": length}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": dim // 4}
    return DoryForCausalLM(DoryConfig(**sizes, **loops, **heads, max_position_embeddings=length))


def hrm(dim: int, length: int) -> nn.Module:
    """Two stacks of two layers, three high cycles of two low ones."""
    from transformers import HrmTextConfig, HrmTextForCausalLM

    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": dim,
        "intermediate_size": 3 * dim,
        "num_hidden_layers": 2,
    }
    cycles = {"H_cycles": 3, "L_cycles": 2, "max_position_embeddings": length}
    return HrmTextForCausalLM(HrmTextConfig(**sizes, **cycles, num_attention_heads=4, head_dim=dim // 4))


def ouro(dim: int, length: int) -> nn.Module:
    """Ouro's parts with a cache of transformers: two layers, four loops."""
    return CachedOuroForCausalLM(CachedOuroConfig(total_ut_steps=4))


MODELS: dict[str, tuple[Callable[[int, int], nn.Module], str]] = {
    "dory": (dory, "its own"),
    "hrm": (hrm, "its own"),
    "ouro's parts": (ouro, "its own"),
    "looplm": (lambda dim, length: lookalikes.LoopLM(), "ours"),
}


def measure(make: Callable[[int, int], nn.Module], options: argparse.Namespace) -> dict[str, Any]:
    """Every way to make one text, in pairs."""
    torch.manual_seed(0)
    length = options.prompt + options.new_tokens
    module: Any = make(options.dim, length).eval()
    model = loopscope.adapt(module)
    ids = torch.randint(parts.VOCABULARY, (1, options.prompt), generator=torch.Generator().manual_seed(1))
    ways: dict[str, Callable[[], list[int]]] = {
        "cached": lambda: list(loopscope.generate(model, ids, options.new_tokens).tokens[0]),
        "anew": lambda: list(loopscope.generate(model, ids, options.new_tokens, cache=False).tokens[0]),
    }
    if hasattr(module, "generate"):
        ways["theirs"] = lambda: _theirs(module, ids, options.new_tokens)
    loopscope.generate(model, ids, 2)  # what is checked once
    times: dict[str, list[float]] = {name: [] for name in ways}
    texts: list[list[int]] = []
    for _ in range(options.pairs):
        for name, run in ways.items():
            began = time.perf_counter()
            texts.append(run())
            times[name].append(time.perf_counter() - began)
    found: dict[str, Any] = {"loops": model.loops, "same": all(text == texts[0] for text in texts)}
    for name, taken in times.items():
        found[name] = options.new_tokens / statistics.median(taken)
        if name != "cached":
            ratios = [slow / fast for slow, fast in zip(taken, times["cached"], strict=True)]
            found[f"over_{name}"] = statistics.median(ratios)
    found["saved"] = min(found[name] for name in ("over_anew", "over_theirs") if name in found)
    return found


def _theirs(module: Any, ids: Tensor, count: int) -> list[int]:
    made = module.generate(ids, max_new_tokens=count, do_sample=False, use_cache=False, eos_token_id=None)
    new: list[int] = made[0, ids.shape[1] :].tolist()
    return new


def machine() -> str:
    """The processor's maker and name, and the vector and matrix instructions that it has."""
    file = Path("/proc/cpuinfo")
    lines = (
        dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        if file.exists()
        else {}
    )
    told = {name.strip(): value.strip() for name, value in lines.items()}
    flags = set(told.get("flags", "").split())
    sets = [
        name
        for flag, name in (("avx2", "AVX2"), ("avx512f", "AVX-512"), ("amx_tile", "AMX"))
        if flag in flags
    ]
    return f"{told.get('vendor_id', '')} {told.get('model name', '')} ({', '.join(sets) or 'none of AVX2 and AVX-512'})"


def _cells(name: str, cache: str, found: dict[str, Any]) -> list[str]:
    def number(key: str, form: str) -> str:
        return format(found[key], form) if key in found else "-"

    speeds = [number("cached", ".1f"), number("anew", ".1f"), number("over_anew", ".1f")]
    theirs = [number("theirs", ".1f"), number("over_theirs", ".1f")]
    return [name, cache, str(found["loops"]), *speeds, *theirs, "yes" if found["same"] else "NO"]


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="models whose name holds one of these; none: all")
    parser.add_argument("--dim", type=int, default=256, help="of the models of transformers")
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # what packages deprecate
    rows, figures = [], {}
    with torch.no_grad():
        for name, (make, cache) in MODELS.items():
            if options.names and not any(part in name for part in options.names):
                continue
            try:
                figures[name] = measure(make, options)
            except ImportError as error:  # an older transformers
                print(f"{name}: {error}")
                continue
            rows.append(_cells(name, cache, figures[name]))
    print(f"{machine()}, {options.threads} threads")
    table(HEADINGS.split(", "), rows)
    where = {**environment(), "machine": machine(), "transformers": __import__("transformers").__version__}
    saved = min(row["saved"] for row in figures.values()) if figures else None
    finish({"benchmark": "foreign_text", "speedup_vs_baseline": saved, "rows": figures}, where)


if __name__ == "__main__":
    main()
