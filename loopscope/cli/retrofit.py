"""`loopscope retrofit`. Heavy imports are inside: `--help` never waits for torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from loopscope.cli.arguments import parse
from loopscope.cli.values import DEEPEST, check_counts, split_names


@dataclass(frozen=True)
class Retrofit:
    """Make a looped model of a Llama, Qwen3 or GPT-2 model: some of its layers are run several times.

    The folder that is written is a model like any other here: train it on with its own train.yaml, audit, evaluate,
    generate. At one loop it gives the source's logits, which is checked. What its recipe will do to the scale of the
    state is said at once.

    Example:
        loopscope retrofit llama --prelude 1 --coda 1 --loops 4 --out models/looped
        loopscope retrofit llama --prelude 1 --loop 2 --coda 1 --loops 4 --carry rmsnorm --out models/short
        loopscope retrofit llama --prelude 0 --coda 0 --objective dense+norm_penalty=0.01 --out models/held --json
    """

    source: tyro.conf.Positional[Path]
    """Folder that transformers wrote (config.json and safetensors, sharded or not), or a name on the hub."""
    out: Path
    """New folder for the looped model."""
    prelude: int = 2
    """Layers before the loop, from the first on."""
    loop: int | None = None
    """Layers that are looped; all that prelude and coda leave by default. With fewer, those before them are dropped."""
    coda: int = 2
    """Layers behind the loop, to the last."""
    loop_from: int | None = None
    """First layer that is looped, counted from 0; by default the loop ends where the coda begins."""
    loops: int = 4
    """K: how often the loop is run."""
    readout: str | None = None
    """H_K to the head's input: raw, final-only, alpha, …; the source's own last norm by default."""
    carry: str = "none"
    """What is done between loops: rmsnorm, layernorm, readout-norm, damping, decay; several with commas."""
    injection: str = "none"
    """How the prelude's output enters every loop: add, gated, concat, write. concat starts as none."""
    objective: str = "dense"
    """What it will be trained on: dense, terminal, exit-weighted, with +norm_penalty=W, or a YAML file."""
    sequence: int | None = None
    """Tokens of a training window; what the source was made for by default, of rotary positions at most 1024."""
    config: Path | None = None
    """YAML file with more: sections model (readout and carry settings, dropout, …), objective, training."""
    measure: bool = True
    """Judge the model as it is, on a little text, beside its recipe."""
    threads: int | None = None
    """CPU threads; torch's choice by default."""
    json: bool = False
    """Print the record as JSON, and nothing else."""


def retrofit(arguments: Sequence[str]) -> None:
    """`loopscope retrofit`."""
    command = parse(Retrofit, "retrofit", arguments)
    check_counts(command, "loops", most=DEEPEST)
    check_counts(command, "sequence", "threads")
    from loopscope.cli.retrofit_print import print_retrofit
    from loopscope.jobs import RetrofitPlan, RetrofitSettings, recipe_of, retrofit_model, use_threads
    from loopscope.results import to_json

    use_threads(command.threads)
    sections = {} if command.config is None else recipe_of(command.config)
    model: dict[str, Any] = {"loops": command.loops, **(sections.get("model") or {})}
    if command.readout is not None:
        model["readout"] = command.readout
    if command.carry != "none":
        model["carry"] = split_names(command.carry)
    if command.injection != "none":
        model["injection"] = command.injection
    if command.sequence is not None:
        model["sequence"] = command.sequence
    objective = str(command.config) if "objective" in sections else command.objective
    record = retrofit_model(
        command.source,
        command.out,
        RetrofitSettings(
            RetrofitPlan(command.prelude, command.loop, command.coda, command.loop_from),
            model,
            objective,
            sections.get("training") or {},
            command.measure,
        ),
    )
    if command.json:
        print(to_json(record))
    else:
        print_retrofit(record, command.out)
