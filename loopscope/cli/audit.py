"""`loopscope audit`: measure models, or read a config. Heavy imports are inside: `--help` never waits for torch."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from loopscope.cli.arguments import parse
from loopscope.cli.values import DEEPEST, check_counts
from loopscope.results.faults import concerning
from loopscope.results.rounded_runs import ROUNDED_BY_DEFAULT


@dataclass(frozen=True)
class Audit:
    """Which loops carry a scale that no loss sees, and what would close it.

    A run and a published checkpoint are judged under their own objective; without one the plausible ones are
    (terminal, dense). Tokens are the run's validation tokens, else the embedded corpus in the model's own tokens.

    Example:
        loopscope audit runs/raw
        loopscope audit runs/demo --out runs/demo/audit.html
        loopscope audit last.pt --objective dense+norm_penalty=0.01 --data 'text/*.txt' --json
        loopscope audit --config run.yaml
        loopscope audit runs/raw --rounding bf16,int8,int4
        loopscope audit runs/demo --wanted-norm 50
        loopscope audit runs/raw --fast
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, study folders, model folders, published last.pt files."""
    config: Path | None = None
    """YAML file of a run: read its verdict before any training, instead of measuring."""
    objective: str | None = None
    """What it was trained on: dense, terminal, exit-weighted, with +norm_penalty=W, or a YAML file."""
    data: str | None = None
    """Text files (a path or a glob), stdlib, a Hugging Face dataset, or tokens.safetensors with input_ids."""
    sequences: int = 8
    """Windows to measure on."""
    loops: int | None = None
    """Depth to audit at; the trained depth by default. At another, nothing is kept but with --keep-in."""
    length: int | None = None
    """Tokens of a window; the trained length by default, at most 256."""
    rounding: str | None = None
    """Number formats to try beside fp32, between commas: bf16, fp16, bf16-autocast, int8, int4, fp8; or none. bf16 by
    default."""
    wanted_norm: float | None = None
    """L2 norm that H is to have over all loops: the weight of a norm penalty for it, and what that costs at most."""
    fast: bool = False
    """The verdict alone: visibility, carry and exposure, in a fraction of the time. Nothing is kept."""
    threads: int | None = None
    """CPU threads; torch's choice by default."""
    cpu_ops: Literal["auto", "off"] = "auto"
    """off: plain PyTorch formulas, where fast operations for a CPU would run."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of a transformers folder: type of its weights in memory, auto as stored. Audits measure in fp32 in any case."""
    device_map: str | None = None
    """Of a transformers folder: where its parts go: auto, cuda:0, a JSON object, …; accelerate places them."""
    json: bool = False
    """Print the whole audit as JSON, and nothing else."""
    out: Path | None = None
    """Write a page with the verdicts and figures."""
    keep: bool = True
    """Keep audit.json in each run's folder, and in a model's of transformers, where `loopscope report` finds it."""
    keep_in: Path | None = None
    """Keep it in this folder instead, where the model's is not to be written into. Then `loopscope report` it."""
    strict: bool = False
    """Exit with status 1 where a verdict is blind: for CI."""


def audit(arguments: Sequence[str]) -> None:
    """`loopscope audit`."""
    command = parse(Audit, "audit", arguments)
    if (command.config is None) == (not command.paths):
        raise ValueError(
            "give a path to measure (a run, a study, a model folder, a last.pt) or --config run.yaml to read, "
            "and not both"
        )
    if command.config and command.loops is not None:
        raise ValueError("loops is for a model that is measured; a config says its own depth in model.loops")
    if command.config and command.wanted_norm is not None:
        raise ValueError(
            "wanted-norm is for a model that is measured: what cross-entropy wants is in no config"
        )
    if command.config and command.rounding is not None:
        raise ValueError("rounding is for a model that is measured: a config has no weights to round")
    if command.fast:
        _refuse_beside_fast(command)
    measure = _fast_audit if command.fast else _measured_audit
    verdicts = _static_audit(command) if command.config else measure(command)
    if command.strict and "blind" in verdicts:
        raise SystemExit(1)


def _static_audit(command: Audit) -> list[str]:
    from loopscope.cli.audit_print import print_static
    from loopscope.cli.kept_settings import as_config
    from loopscope.config.nested import read_yaml
    from loopscope.config.recipes import recipe
    from loopscope.config.sizes import DEFAULT_SIZE
    from loopscope.plan.static_audit import audit_config
    from loopscope.results import to_json

    assert command.config is not None
    values = as_config(command.config, read_yaml(command.config))
    size, condition = values.pop("size", DEFAULT_SIZE), values.pop("condition", "dense/rmsnorm")
    found = audit_config(recipe(size, condition, values))
    if command.json:
        print(to_json(found))
    else:
        print_static(found)
    return [found.verdict]


def _refuse_beside_fast(command: Audit) -> None:
    whole = "a page and a record are of a whole audit"
    beside = {
        "out": (command.out, whole),
        "keep-in": (command.keep_in, whole),
        "config": (command.config, "a config is read, not measured"),
        "wanted-norm": (command.wanted_norm, "a weight is named from a whole audit"),
        "rounding": (command.rounding, "number formats are tried in a whole audit"),
    }
    for name, (given, why) in beside.items():
        if given is not None:
            raise ValueError(f"--{name} does not go with --fast: {why}; leave one of them out")


def _fast_audit(command: Audit) -> list[str]:
    _set_up(command)
    from loopscope.cli.audit_print import print_judged
    from loopscope.jobs import judge_paths
    from loopscope.results import judged_values

    of = (command.paths, command.objective, command.data, command.sequences, command.length, command.loops)
    found = []
    for judged in judge_paths(*of):
        found.append(judged)
        if not command.json:
            print_judged(judged)
    if command.json:
        _print_json([judged_values(judged) for judged in found])
    return [judged.judgement.verdict for judged in found]


def _print_json(values: Sequence[dict[str, Any]]) -> None:
    """One model as it is, several under `models`."""
    from loopscope.results import to_json

    print(to_json(values[0] if len(values) == 1 else {"models": values}))


def _set_up(command: Audit) -> None:
    check_counts(command, "sequences", "length", "threads")
    check_counts(command, "loops", most=DEEPEST)
    from loopscope.jobs import load_with, use_cpu_ops, use_threads

    load_with(command.dtype, command.device_map)
    use_threads(command.threads)
    use_cpu_ops(command.cpu_ops)


def _measured_audit(command: Audit) -> list[str]:
    _set_up(command)
    from loopscope.cli.audit_print import print_audits
    from loopscope.jobs import audit_paths
    from loopscope.results import audit_values

    audits = []
    for audited in audit_paths(
        command.paths,
        command.objective,
        command.data,
        command.sequences,
        command.length,
        command.keep,
        command.keep_in,
        command.loops,
        ROUNDED_BY_DEFAULT if command.rounding is None else command.rounding,
        command.wanted_norm,
    ):
        audits.append(audited)
        if not command.json:
            print_audits([audited])
    if not command.json and (others := _other_seeds(command.paths)):
        print(f"The first seed of each condition was audited. Another one: loopscope audit {others[0]}")
    if command.json:
        _print_json([audit_values(audited) for audited in audits])
    if command.out:
        from loopscope.report.audit_page import write_audit_page

        with concerning(command.out):  # a full disk names no figure
            page = write_audit_page(audits, command.out)
        print(page, file=sys.stderr if command.json else sys.stdout)
    return [audited.report.verdict for audited in audits]


def _other_seeds(paths: Sequence[Path]) -> list[Path]:
    """Runs of studies that an audit of them leaves out."""
    from loopscope.jobs import ordered_first_runs, ordered_runs

    others: list[Path] = []
    for path in (path for path in paths if path.is_dir()):
        first = set(ordered_first_runs(path))
        others += [run for run in ordered_runs(path) if run not in first]
    return others
