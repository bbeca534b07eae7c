"""The scale monitor in the Hugging Face `Trainer`: figures go where the trainer's own go.

    trainer.add_callback(ScaleMonitorCallback(trainer, ScaleMonitor(view, objective)))

The monitor's model is a view of the trainer's: an `AbstractLoopedLM` that shares its weights.
"""

from collections.abc import Mapping, Sized
from typing import Any

from jaxtyping import Int
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loopscope.guards import same_random_numbers
from loopscope.monitor.batch_slice import SEQUENCES
from loopscope.monitor.monitor import ScaleMonitor
from loopscope.monitor.whole_weights import WholeWeights, in_shards
from loopscope.objectives.objective import Objective
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.results import check_from_figures


class ScaleMonitorCallback(TrainerCallback):
    """Scale monitor for a Hugging Face Trainer: checks after every optimizer step, always on the same few sequences.

    Every check is logged through `trainer.log`, so it is in `state.log_history` and in whatever the trainer
    reports to (`loopscope/rms_loop_4`, …). A resumed training goes on from the checks in its log history.
    Where the trainer's callbacks have a `TrainerLoss` with a schedule, the monitor judges by what its phase trains on.
    With several processes, the first one checks and the others wait for it at their next exchange. Weights in shards
    (FSDP2) are gathered for it at every turn, one at a time: the first process keeps them whole once more.

    Args:
        trainer: the trainer that this callback is added to.
        monitor: with a view of the trainer's model; its `log` is called too.
        probe: token ids to check on; None takes the first sequences of the training data, whose labels are
            expected as transformers has them: beside their own tokens, for the model to shift.

    Raises:
        ValueError: at the start of training: weights in shards other than FSDP2's (FSDP1, DeepSpeed), or no probe and
            training data that has no first sequences to take without disturbing it.
    """

    def __init__(
        self, trainer: Trainer, monitor: ScaleMonitor, probe: Int[Tensor, "batch seq"] | None = None
    ) -> None:
        self.trainer = trainer
        self.monitor = monitor
        self.probe = probe
        self.tokens: tuple[Tensor, Tensor] | None = None
        self.whole: WholeWeights | None = None
        self._turn: int | None = None
        self._phase = 1  # of the loss that is trained on; the monitor was given that of the first
        if trainer.is_fsdp_enabled:  # not yet in shards: the Trainer cuts the weights when training begins
            self.whole = WholeWeights(monitor.model, trainer.is_world_process_zero())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Fix the tokens to check on, and take up the checks of a training that is resumed."""
        view, sharded = self.monitor.model, in_shards(self.monitor.model)
        if self.trainer.is_deepspeed_enabled or (self.trainer.is_fsdp_enabled and not sharded):
            raise ValueError(
                "this trainer shards its weights by FSDP1 or DeepSpeed, and the scale monitor needs whole ones; shard "
                "them by FSDP2 (fsdp_version: 2), train with DDP, or audit saved checkpoints with loopscope.audit"
            )
        if sharded and self.whole is None:
            self.whole = WholeWeights(view, state.is_world_process_zero)
        if self.whole is not None and self.whole.copy is not None:
            self.monitor.model = self.whole.copy
        self._turn = None
        self.tokens = self._tokens(kwargs.get("train_dataloader"))
        if self.monitor.alarm.steps is None and state.max_steps > 0:
            self.monitor.alarm.steps = state.max_steps
        kept = [check_from_figures(int(entry.get("step", 0)), entry) for entry in state.log_history]
        self.monitor.resume([check for check in kept if check is not None])
        self.monitor.budget.restart()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check where a check is due, and log it."""
        switched = self._follow_phase(state.global_step)
        if self.whole is not None:
            turn = state.global_step // self.monitor.every
            if turn == self._turn and not switched:
                return
            self._turn = turn
            with self.monitor.budget.spending():
                self.whole.gather()
        if not state.is_world_process_zero or self.tokens is None:
            return
        check = self.monitor.step(state.global_step, *self.tokens)
        if check is not None:
            due = (
                control.should_log
            )  # logging clears it, and the trainer's own figures of this step would be lost
            self.trainer.log(check.figures())
            control.should_log = due

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the time of an evaluation out: it is no training time."""
        self.monitor.budget.restart()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the time of saving out: it is no training time."""
        self.monitor.budget.restart()

    def _follow_phase(self, step: int) -> bool:
        """Let the monitor judge by what this step was trained on; return whether that is new, as all processes do."""
        scheduled = [each for each in self.trainer.callback_handler.callbacks if hasattr(each, "phase")]
        for loss in scheduled:
            if isinstance(loss.objective, Objective) and loss.phase != self._phase:
                self._phase = loss.phase
                self.monitor.switch(loss.objective, step)
                return True
        return False

    def _tokens(self, dataloader: Any) -> tuple[Tensor, Tensor]:
        if self.probe is not None:
            return self.probe[:, :-1], self.probe[:, 1:]
        dataset: Any = getattr(dataloader, "dataset", None)
        # Items by number, collated aside: iterating over the loader would draw the numbers that shuffle it.
        by_number = isinstance(dataset, Sized) and not isinstance(dataset, IterableDataset)
        if not by_number or len(dataset) == 0:
            raise ValueError(
                f"the training data is a {type(dataset).__name__}, whose first sequences cannot be read without "
                "disturbing it; give ScaleMonitorCallback(trainer, monitor, probe=input_ids) token ids to check on"
            )
        with same_random_numbers(self.trainer.args.device):
            items = [dataset[index] for index in range(min(SEQUENCES, len(dataset)))]
            batch = dataloader.collate_fn(items)
        if not isinstance(batch, Mapping) or "input_ids" not in batch:
            raise ValueError(
                "the training data's batches have no input_ids; give ScaleMonitorCallback(trainer, monitor, "
                "probe=input_ids) token ids to check on"
            )
        input_ids = batch["input_ids"]
        labels = batch["labels"] if batch.get("labels") is not None else input_ids
        return input_ids[:, :-1], labels[:, 1:].masked_fill(labels[:, 1:] < 0, IGNORE_INDEX)
