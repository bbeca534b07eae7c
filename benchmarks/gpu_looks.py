"""What `benchmarks.gpu` measures beside training: an audit, exits, generation, and decoding by a CUDA graph."""

import statistics
import time
from typing import Any

import torch

import loopscope
from benchmarks.baseline import BaselineLooped
from benchmarks.early_exit import varied_batch
from benchmarks.environment import table
from benchmarks.graph_decode import StaticDecoder
from loopscope.config import recipe
from loopscope.evaluation import AbstractExitRule, build_rule, measure_speed, record_exits
from loopscope.evaluation.exits import Sweep
from loopscope.generation import Generated, Settings, Stopping, generate_tokens
from loopscope.guards import wait
from loopscope.model import LoopedTransformer
from loopscope.plan import forward_flops


def looks(size: str, small: bool, device: torch.device, pairs: int) -> dict[str, Any]:
    """Measure all four at one size, print a table, and return the figures."""
    batch, sequence, new_tokens = (2, 32, 8) if small else (8, 256, 128)
    config = recipe(size, "dense/rmsnorm").model
    sequence = min(sequence, config.sequence - new_tokens - 1)
    torch.manual_seed(0)
    model = LoopedTransformer(config).to(device).eval()
    ids = torch.randint(config.vocabulary, (batch, sequence + 1), device=device)
    found = {
        "audit": audit_seconds(model, ids, pairs),
        "exits": exit_speed(size, batch, sequence, device, pairs),
        "generation": decoding(model, ids[:, : sequence // 2], new_tokens, pairs),
    }
    print(f"{size}, {batch} × {sequence}: looks")
    rows = [
        [f"{what}: {name}", f"{value:.4g}"] for what, part in found.items() for name, value in part.items()
    ]
    table(["what", "found"], rows)
    print(flush=True)
    return {"size": size, "batch": batch, "sequence": sequence, "new_tokens": new_tokens, **found}


def audit_seconds(model: LoopedTransformer, ids: torch.Tensor, pairs: int) -> dict[str, float]:
    """An audit beside a forward pass to the trained depth, both in fp32."""
    audits, forwards = [], []
    for _ in range(pairs):
        forwards.append(_timed(lambda: _forward(model, ids[:, :-1]), ids.device))
        audits.append(_timed(lambda: loopscope.audit(model, ids[:, :-1], ids[:, 1:]), ids.device))
    return {
        "seconds": statistics.median(audits),
        "forward passes": statistics.median(a / f for a, f in zip(audits, forwards, strict=True)),
    }


@torch.no_grad()
def _forward(model: LoopedTransformer, ids: torch.Tensor) -> None:
    for state in loopscope.unroll(model, ids):
        last = state
    last.logits()


def exit_speed(size: str, batch: int, sequence: int, device: torch.device, pairs: int) -> dict[str, float]:
    """Early exit by logit margin at half of the loops, beside fixed depth: as `benchmarks.early_exit`."""
    config = recipe(size, "dense/raw", {"model": {"tied": False}}).model
    torch.manual_seed(0)
    model = LoopedTransformer(config).to(device).eval()
    ids = varied_batch(batch, sequence, config.vocabulary).to(device)
    rule = build_rule("logit-margin")
    assert isinstance(rule, AbstractExitRule)
    record = record_exits(model, [(part, part) for part in ids.split(4)], [rule], 1.0)
    sweep = Sweep.of(rule, record.units(rule, "sequence"))
    nearest = int((sweep.mean_loops - config.loops / 2).abs().argmin())

    def flops(loops: int, exits: int) -> float:
        return float(forward_flops(config, sequence, loops, exits))

    speed = measure_speed(model, ids, rule, float(sweep.thresholds[nearest]), pairs, flops)
    assert speed.allowed is not None
    return {"mean loops": speed.mean_loops, "realised": speed.realised, "allowed": speed.allowed}


@torch.no_grad()
def decoding(model: LoopedTransformer, prompt: torch.Tensor, new_tokens: int, pairs: int) -> dict[str, float]:
    """Tokens per second and row: ours, a static step launch by launch, and (CUDA) that step as a graph."""
    settings = Settings(Stopping(new_tokens))
    decoder = StaticDecoder(BaselineLooped.like(model).eval(), len(prompt), prompt.shape[1] + new_tokens + 1)
    ways = {"static": decoder.step, **({"graph": decoder.graph()} if prompt.is_cuda else {})}
    ours = generate_tokens(model, prompt, settings)
    agree = decoder.text(prompt, new_tokens, decoder.step) == _rows(ours, prompt.device)
    seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in ways}}
    for _ in range(pairs):
        taken = _timed(lambda: generate_tokens(model, prompt, settings), prompt.device)
        seconds["ours"].append(taken / new_tokens)
        for name, step in ways.items():
            seconds[name].append(decoder.seconds(prompt, new_tokens, step))
    speeds = {f"{name}, tokens/s": 1 / statistics.median(found) for name, found in seconds.items()}
    return {**speeds, "share of equal tokens": float(agree.float().mean())}


def _rows(found: Generated, device: torch.device) -> torch.Tensor:
    return torch.tensor(found.tokens, device=device)


def _timed(work: Any, device: torch.device) -> float:
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - began
