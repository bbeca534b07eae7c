"""Training: the model and the data are passed in. The settings (`config`) load without torch.

In the order in which a run passes:

    config          how long, how fast, and what is written on the way
    hardware, malloc, compile   device and precision, freed memory, compiled layers
    cpu_model, cpu_choices, cpu_trials   which sizes are fastest on this CPU: found once a machine, kept with the run
    loop            `train`: from the newest checkpoint to the last step
    timetable       which objective trains at which steps
    extension       what goes on exactly where a run is made longer, and what does not
    stop_request    Ctrl-C and schedulers' signals: the step is finished and saved
    prefetch        batches, one step ahead
    step            one optimizer step: forward, loss, backward, update
    optim, muon     optimizers, learning rate, clipping
    finite_watch    the first step whose loss or gradient was not finite
    validation      what every loop is worth on held-out text
    scale_monitor   the scale monitor of a run
    checkpoint, optimizer_state   where a run stands, on disk
    checkpoint_saver   when it is saved and how: in the background, which are kept, what a full disk costs
    weights         weights of another run to begin with
    metrics, step_record, progress, throughput   what is logged, what is shown, and how fast it goes
    trainer_loss    objectives in the Hugging Face Trainer; trainer_loss_checks: what it refuses
    loggers/        trackers of runs: TensorBoard, Trackio, Weights & Biases
    distributed/    several processes: DDP, FSDP2, batches that they share, checkpoints in shards
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loopscope.training.checkpoint import load_checkpoint, save_checkpoint
    from loopscope.training.config import TrainingConfig
    from loopscope.training.hardware import Precision, resolve_device, resolve_precision
    from loopscope.training.loop import Outcome, TrainingData, train
    from loopscope.training.malloc import keep_freed_memory
    from loopscope.training.optim import build_optimizer, learning_rate
    from loopscope.training.prefetch import Prefetcher, TrainingWindows
    from loopscope.training.step import TrainingStep
    from loopscope.training.stop_request import TrainingStoppedError
    from loopscope.training.throughput import Speedometer, matmul_peak
    from loopscope.training.trainer_loss import TrainerLoss
    from loopscope.training.validation import validate
    from loopscope.training.weights import load_weights

_HOMES = {
    "TrainingConfig": "config",
    "Precision": "hardware",
    "resolve_device": "hardware",
    "resolve_precision": "hardware",
    "keep_freed_memory": "malloc",
    "Outcome": "loop",
    "TrainingData": "loop",
    "train": "loop",
    "TrainerLoss": "trainer_loss",
    "Prefetcher": "prefetch",
    "TrainingWindows": "prefetch",
    "TrainingStep": "step",
    "TrainingStoppedError": "stop_request",
    "build_optimizer": "optim",
    "learning_rate": "optim",
    "validate": "validation",
    "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
    "load_weights": "weights",
    "Speedometer": "throughput",
    "matmul_peak": "throughput",
}
__all__ = [
    "Outcome",
    "Precision",
    "Prefetcher",
    "Speedometer",
    "TrainerLoss",
    "TrainingConfig",
    "TrainingData",
    "TrainingStep",
    "TrainingStoppedError",
    "TrainingWindows",
    "build_optimizer",
    "keep_freed_memory",
    "learning_rate",
    "load_checkpoint",
    "load_weights",
    "matmul_peak",
    "resolve_device",
    "resolve_precision",
    "save_checkpoint",
    "train",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use: the settings are needed where torch is not."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
