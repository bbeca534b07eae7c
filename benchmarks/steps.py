"""The steps that `benchmarks.train_step` compares: what each runs, its FLOPs, its memory."""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.baseline import BaselineLooped, baseline_step
from benchmarks.high_water import peak_of
from loopscope.config import RunConfig, recipe
from loopscope.guards import device_of, wait
from loopscope.model import LoopedTransformer, ModelConfig
from loopscope.model.reference import PlainLooped, plain_loss, plain_optimizer
from loopscope.objectives import build_objective
from loopscope.ops.cpu_sizes import CpuSizes
from loopscope.plan import cost
from loopscope.plan.parameters import training_flops
from loopscope.training import Precision, TrainingStep, build_optimizer, keep_freed_memory
from loopscope.training.compile import WORTH_COMPILING, compile_layers, is_fused
from loopscope.training.cpu_choices import kept_or_found
from loopscope.training.cpu_trials import found_by_trials

Step = Callable[[], float]
"""Takes one step and returns its seconds."""


@dataclass(frozen=True)
class Kind:
    """One way to take a step."""

    what: Literal["ours", "tuned", "baseline", "masked", "terminal", "unlooped"]
    precision: Precision
    only_main: bool = False  # measured in the precision that training would use, not in both

    def model_config(self, options: argparse.Namespace) -> ModelConfig:
        """What it trains."""
        config = _run_config(options).model
        if self.what == "unlooped":
            return config.model_copy(update={"layers": config.layers * config.loops, "loops": 1})
        return config

    def flops(self, options: argparse.Namespace) -> float:
        """FLOPs per token of a step."""
        config = self.model_config(options)
        exits = config.loops if self.what in ("ours", "tuned", "baseline", "masked") else 1
        return float(training_flops(config, config.sequence, config.loops, exits))

    def parameters(self, options: argparse.Namespace) -> int:
        """Of what it trains."""
        return cost(self.model_config(options)).parameters


KINDS: dict[str, Kind] = {
    "ours fp32": Kind("ours", "fp32"),
    "tuned fp32": Kind("tuned", "fp32"),
    "baseline fp32": Kind("baseline", "fp32"),
    "masked fp32": Kind("masked", "fp32"),
    "ours bf16": Kind("ours", "bf16"),
    "tuned bf16": Kind("tuned", "bf16"),
    "baseline bf16": Kind("baseline", "bf16"),
    "masked bf16": Kind("masked", "bf16"),
    "terminal fp32": Kind("terminal", "fp32", only_main=True),
    "terminal bf16": Kind("terminal", "bf16", only_main=True),
    "unlooped fp32": Kind("unlooped", "fp32", only_main=True),
    "unlooped bf16": Kind("unlooped", "bf16", only_main=True),
}


def build(names: Sequence[str], options: argparse.Namespace, device: torch.device) -> dict[str, Step]:
    """Steps by name. All looped ones train one model, so that memory holds its weights once."""
    models: dict[str, LoopedTransformer] = {}
    steps = {}
    for name in names:
        kind = KINDS[name]
        config = kind.model_config(options)
        key = config.model_dump_json()
        if key not in models:
            models[key] = _model(config, options, device)
        model = models[key]
        clock = time.process_time if getattr(options, "clock", "wall") == "processor" else time.perf_counter
        steps[name] = _timed(clock, _raw(model, kind, options))
    return {name: _on(step, options, device) for name, step in steps.items()}


def peak_memory(name: str, options: argparse.Namespace, device: torch.device) -> float:
    """Bytes of a step above weights and optimizer state. Call it in a process of its own."""
    kind = KINDS[name]
    model = _model(kind.model_config(options), options, device)
    step = _raw(model, kind, options)
    del model  # the baseline has a copy of its own
    # Makes the optimizer's state, and compiles: after two sizes, kernels are there for any.
    for batch, sequence in ((2, 16), (3, 24)):
        small = argparse.Namespace(**{**vars(options), "batch": batch, "sequence": sequence})
        step(*_tokens(small, device, kind.model_config(options).vocabulary))
    full = _tokens(options, device, kind.model_config(options).vocabulary)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(*full)
        return float(torch.cuda.max_memory_allocated() - before)
    return peak_of(lambda: step(*full))


def _run_config(options: argparse.Namespace) -> RunConfig:
    model: dict[str, Any] = {}
    if options.sequence:
        model["sequence"] = options.sequence
    if options.dropout is not None:
        model["dropout"] = options.dropout
    if getattr(options, "loops", None):
        model["loops"] = options.loops
    if getattr(options, "vocabulary", None):
        model["vocabulary"] = options.vocabulary
    return recipe(options.size, "dense/rmsnorm", {"model": model})


def _model(config: ModelConfig, options: argparse.Namespace, device: torch.device) -> LoopedTransformer:
    torch.manual_seed(0)
    model = LoopedTransformer(config).to(device).train()
    model.gradient_checkpointing = options.checkpointing
    if options.compile is True and device.type != "cpu":
        compile_layers(model)
    return model


Raw = Callable[[Tensor, Tensor], object]


def _raw(model: LoopedTransformer, kind: Kind, options: argparse.Namespace) -> Raw:
    match kind.what:
        case "baseline":
            config = recipe(options.size, "dense/rmsnorm").training
            return baseline_step(BaselineLooped.like(model), config, kind.precision)
        case "masked":
            return _masked(model, kind, options)
    return _ours(model, kind, options)


def _ours(model: LoopedTransformer, kind: Kind, options: argparse.Namespace) -> Raw:
    condition = "dense/rmsnorm" if kind.what in ("ours", "tuned") else "terminal/rmsnorm"
    config = recipe(options.size, condition)
    training = config.training.model_copy(update={"batch": options.batch, "accumulation": 1})
    if device_of(model).type == "cpu":
        keep_freed_memory()  # as training does
    take_step = TrainingStep(
        model,
        build_objective(config.objective),
        build_optimizer(model, training),
        training,
        device_of(model),
        kind.precision,
        is_fused(options.compile, device_of(model), WORTH_COMPILING),
        sizes=kept_or_found(kind.precision, found_by_trials).sizes if kind.what == "tuned" else CpuSizes(),
    )

    def step(input_ids: Tensor, labels: Tensor) -> None:
        take_step(input_ids, labels, (model.loops,))

    return step


def _masked(looped: LoopedTransformer, kind: Kind, options: argparse.Namespace) -> Raw:
    config = recipe(options.size, "dense/rmsnorm").training
    model = PlainLooped(looped)
    optimizer = plain_optimizer(model, config.learning_rate, config.betas, config.weight_decay)
    device = device_of(looped)

    def step(input_ids: Tensor, labels: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=kind.precision == "bf16"):
            every_logits, _ = model(input_ids)
            loss = plain_loss(every_logits, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _timed(clock: Callable[[], float], step: Raw) -> Callable[[Tensor, Tensor], float]:
    def timed(input_ids: Tensor, labels: Tensor) -> float:
        wait(input_ids.device)
        began = clock()
        step(input_ids, labels)
        wait(input_ids.device)
        return clock() - began

    return timed


def _on(step: Callable[[Tensor, Tensor], float], options: argparse.Namespace, device: torch.device) -> Step:
    batch = _tokens(options, device, _run_config(options).model.vocabulary)
    return lambda: step(*batch)


def _tokens(options: argparse.Namespace, device: torch.device, vocabulary: int) -> tuple[Tensor, Tensor]:
    sequence = options.sequence or recipe(options.size).model.sequence
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(vocabulary, (options.batch, sequence + 1), generator=generator).to(device)
    return tokens[:, :-1], tokens[:, 1:]
