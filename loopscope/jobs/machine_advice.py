"""What is slow on a machine, why, and what to do: one line each. Importable without torch."""

from collections.abc import Iterator

from loopscope.config.recipes import recipe
from loopscope.config.sizes import DEFAULT_SIZE
from loopscope.jobs.machine_facts import MachineFacts
from loopscope.plan.training_flops import training_cost

LITTLE_DISK = 5e9
"""Bytes below which a handful of checkpoints and token files may not fit."""
LITTLE_MEMORY = 0.2
"""Share of the memory: others have the rest."""


def advice_for(facts: MachineFacts) -> Iterator[str]:
    """Yield one line for each thing that is slow or missing, most telling first."""
    if facts.device == "cpu":
        config = recipe(DEFAULT_SIZE)
        steps, model = config.training.steps or 0, config.model
        flops = steps * config.training.batch * model.sequence * training_cost(config)
        least = flops / facts.speeds[facts.precision]
        yield (
            f"No GPU: a run of size {DEFAULT_SIZE} ({steps} steps, {flops:.2g} FLOPs) takes {_time(least)} at the very "
            "least, at the speed of the products above; large sizes want a GPU."
        )
    fp32, bf16 = facts.speeds["fp32"], facts.speeds["bf16"]
    if facts.precision == "fp32" and bf16 < fp32:
        yield (
            f"bf16 is emulated here: its products run at {bf16 / fp32:.2g} of fp32's speed, so auto takes fp32. Leave "
            "training.precision and --dtype alone; CPUs with AVX512-BF16 or AMX multiply it themselves."
        )
    elif facts.precision == "fp32" and bf16 > 1.2 * fp32:
        yield (
            f"bf16 products are {bf16 / fp32:.2g} times as fast as fp32's, though auto takes fp32: try "
            "--training.precision bf16."
        )
    elif facts.precision == "bf16" and bf16 < 1.2 * fp32:
        yield (
            f"bf16 products are only {bf16 / fp32:.2g} times as fast as fp32's: --training.precision fp32 costs little "
            "here and rounds less."
        )
    if facts.device == "cpu" and facts.threads > facts.cores:
        yield (
            f"torch takes {_threads(facts.threads)} for {facts.cores:g} cores: they wait for each other. Set "
            f"OMP_NUM_THREADS={max(1, int(facts.cores))} or --training.threads {max(1, int(facts.cores))}."
        )
    elif facts.device == "cpu" and facts.threads < int(facts.cores):
        yield (
            f"torch takes {_threads(facts.threads)} of {facts.cores:g} cores (OMP_NUM_THREADS or MKL_NUM_THREADS says "
            f"so): --training.threads {int(facts.cores)} takes all."
        )
    if facts.load is not None and facts.load > facts.cores:
        yield (
            f"Others are working: {facts.load:.1f} processes want {facts.cores:g} cores, so the speeds above are too "
            "low, and runs take longer than they would alone."
        )
    if facts.compiler_missing:
        yield (
            f"training.compile cannot be used ({facts.compiler_missing}): long runs on a CPU lose its gain. Install "
            "g++."
        )
    if facts.memory and facts.memory_free is not None and facts.memory_free < LITTLE_MEMORY * facts.memory:
        yield (
            f"{facts.memory_free / 1e9:.3g} of {facts.memory / 1e9:.3g} GB of memory are free: close other programs, "
            "or take a smaller --training.batch or --training.gradient-checkpointing layer."
        )
    for folder, free in ((facts.disk, facts.disk_free), (facts.cache, facts.cache_free)):
        if free is not None and free < LITTLE_DISK:
            yield f"{free / 1e9:.3g} GB are free for {folder}: a full disk ends a run. Make room, or name another."
    if missing := [extra for extra, there in facts.extras.items() if not there]:
        yield (
            f"Not installed, and needed for some commands only: pip install 'loopscope[{','.join(missing)}]'."
        )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"
