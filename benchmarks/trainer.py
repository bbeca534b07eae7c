"""An exported model in the Hugging Face Trainer beside our own training step: losses step by step, time, memory.

    python -m benchmarks.trainer                                        # 44M, 4 × 128, 6 steps: minutes on one core
    python -m benchmarks.trainer --size laptop --batch 8 --steps 20

Both start from one folder, which `loopscope export` could have written, and train on the same tokens in the same order,
watched by the scale monitor: `transformers.Trainer` with `TrainerLoss` and `ScaleMonitorCallback`, and the step that
`loopscope train` takes. AdamW without decay, a constant rate, gradients cut at 1, no dropout.

Each side is a process of its own, since memory is a peak and what a step pays for it depends on what else has grown
the heap. They take turns, one at a time. Time is the processor's, from the beginning of a step until its weights have
changed, without the monitor: medians over steps, the first left out. Memory is the peak of the whole training above
the loaded model.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import loopscope
from benchmarks.environment import MEBI, elsewhere, environment, finish, table
from benchmarks.high_water import peak_of
from loopscope.config import recipe
from loopscope.interop.huggingface.export.exported_folder import write_export
from loopscope.model import LoopedTransformer
from loopscope.monitor import ScaleMonitor, ScaleMonitorCallback
from loopscope.objectives import build_objective
from loopscope.training import TrainerLoss, TrainingStep, build_optimizer, keep_freed_memory

SIDES = ("trainer", "ours")
RATE = 3e-4


def main() -> None:
    """Train on both sides in turn, print losses and a table, end with one line of JSON."""
    options = _options()
    torch.set_num_threads(options.threads)
    if options.side:
        with redirect_stdout(sys.stderr):  # where the Trainer prints what it logs
            found_here = (_trainer if options.side == "trainer" else _ours)(options)
        finish(found_here, {})
        return
    config = recipe(options.size, options.condition)
    model_config = config.model.model_copy(update={"dropout": 0.0})
    torch.manual_seed(0)
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with TemporaryDirectory() as place:
        folder = write_export(LoopedTransformer(model_config), Path(place) / "export")
        for _ in range(options.repeats):
            for side in SIDES:
                found[side].append(elsewhere("trainer", "--side", side, "--export", str(folder)))
    theirs, ours = (found[side][0]["losses"] for side in SIDES)
    rows = [
        [str(step), f"{one:.6f}", f"{other:.6f}", f"{abs(one - other):.1e}"]
        for step, (one, other) in enumerate(zip(theirs, ours, strict=True), start=1)
    ]
    table(["step", "Trainer's loss", "ours", "difference"], rows)
    print()
    seconds = {side: [s for run in found[side] for s in run["seconds"][1:]] for side in SIDES}
    peaks = {side: max(run["peak_bytes"] for run in found[side]) for side in SIDES}
    table(
        ["side", "processor s a step", "peak, MiB", "verdicts"],
        [
            [
                side,
                f"{statistics.median(seconds[side]):.3f}",
                f"{peaks[side] / MEBI:,.0f}",
                ", ".join(dict.fromkeys(found[side][0]["verdicts"])),
            ]
            for side in SIDES
        ],
    )
    print()
    finish(
        {
            "benchmark": "trainer",
            "size": options.size,
            "condition": options.condition,
            "batch": options.batch,
            "accumulation": options.accumulation,
            "sequence": options.sequence,
            "steps": options.steps,
            "repeats": options.repeats,
            "largest_loss_difference": largest_difference(theirs, ours),
            "time_ratio": round(
                statistics.median(seconds["trainer"]) / statistics.median(seconds["ours"]), 3
            ),
            "memory_ratio": round(peaks["trainer"] / peaks["ours"], 3),
            "peak_mib": {side: round(peaks[side] / MEBI) for side in SIDES},
            "same_verdicts": found["trainer"][0]["verdicts"] == found["ours"][0]["verdicts"],
        },
        environment(dtype=options.dtype),
    )


def largest_difference(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Return the largest difference of two courses of losses."""
    return max(abs(one - other) for one, other in zip(theirs, ours, strict=True))


def _tokens(options: argparse.Namespace, vocabulary: int) -> Tensor:
    """Texts that can be learned, [steps · batch, seq + 1]: each counts from a token, by a stride of its own."""
    draw = torch.Generator().manual_seed(1)
    count = options.steps * options.batch
    start, stride = (torch.randint(1, vocabulary, (count, 1), generator=draw) for _ in range(2))
    return (start + (stride % 7 + 1) * torch.arange(options.sequence + 1)) % vocabulary


def _trainer(options: argparse.Namespace) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(options.export)
    items = [{"input_ids": ids, "labels": ids} for ids in _tokens(options, model.config.vocab_size)]
    condition = recipe(options.size, options.condition)
    loss, losses, seconds = TrainerLoss(model, condition.objective), [], []

    def noted(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Tensor:
        value = loss(outputs, labels, num_items_in_batch)
        losses.append(float(value.detach()))
        return value

    class Clock(TrainerCallback):
        began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.process_time()

        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            seconds.append(time.process_time() - self.began)

    with TemporaryDirectory() as place:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                place,
                per_device_train_batch_size=options.batch // options.accumulation,
                gradient_accumulation_steps=options.accumulation,
                max_steps=options.steps,
                learning_rate=RATE,
                lr_scheduler_type="constant",
                optim="adamw_torch_fused",
                train_sampling_strategy="sequential",
                bf16=options.dtype == "bf16",
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=items,
            compute_loss_func=noted,
            callbacks=[Clock(), loss],
        )
        monitor = ScaleMonitor(
            loopscope.adapt(model), loss.objective, every=options.monitor_every, budget=None
        )
        trainer.add_callback(ScaleMonitorCallback(trainer, monitor))
        peak = peak_of(trainer.train)
    parts = range(0, len(losses), options.accumulation)
    whole = [sum(losses[first : first + options.accumulation]) for first in parts]
    return _figures(whole, seconds, peak, monitor)


def _ours(options: argparse.Namespace) -> dict[str, Any]:
    model = loopscope.load(options.export).train()
    assert isinstance(model, LoopedTransformer)
    condition = recipe(options.size, options.condition)
    training = condition.training.model_copy(
        update={
            **{"batch": options.batch, "accumulation": options.accumulation, "learning_rate": RATE},
            **{"weight_decay": 0.0, "clip": 1.0},
        }
    )
    objective = build_objective(condition.objective)
    keep_freed_memory()  # as training does
    device = torch.device("cpu")
    step = TrainingStep(model, objective, build_optimizer(model, training), training, device, options.dtype)
    monitor = ScaleMonitor(model, objective, every=options.monitor_every, budget=None)
    tokens, losses, seconds = _tokens(options, model.config.vocabulary), [], []

    def train() -> None:
        probe = tokens[:2]
        for number, batch in enumerate(tokens.split(options.batch), start=1):
            began = time.process_time()
            loss, _ = step(batch[:, :-1], batch[:, 1:], (model.loops,))
            losses.append(float(loss.total))
            seconds.append(time.process_time() - began)
            monitor.step(number, probe[:, :-1], probe[:, 1:])

    return _figures(losses, seconds, peak_of(train), monitor)


def _figures(losses: list[float], seconds: list[float], peak: float, monitor: ScaleMonitor) -> dict[str, Any]:
    verdicts = [check.verdict for check in monitor.history]
    return {"losses": losses, "seconds": seconds, "peak_bytes": peak, "verdicts": verdicts}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="published-44m")
    parser.add_argument("--condition", default="dense/rmsnorm")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=1, help="parts of a batch, on both sides")
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6, help="of which the first is not timed")
    parser.add_argument("--repeats", type=int, default=2, help="trainings of each side")
    parser.add_argument("--monitor-every", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--export", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps < 2:
        parser.error(f"--steps is {options.steps}; give 2 or more, since the first is not timed")
    if options.batch % options.accumulation:
        parser.error(f"--accumulation {options.accumulation} does not divide --batch {options.batch}")
    return options


if __name__ == "__main__":
    main()
