"""Loopscope's objectives in the Trainer of transformers.

    Trainer(model=model, compute_loss_func=TrainerLoss(model, "dense+norm_penalty=0.01"), ...)

The loss is computed inside the model's forward, so that whatever stands around that (autocast, DDP, FSDP2, adapters)
stands around the loss too. The Trainer takes the labels out before it calls the model: that first call keeps the
inputs and runs nothing, and the loss calls the model again with the labels. Memory is that of `Objective`: no loop's
logits stay.
"""

import warnings
from collections.abc import Callable
from functools import wraps
from inspect import signature
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.modeling_outputs import CausalLMOutputWithPast

from loopscope.objectives.config import ObjectiveConfig
from loopscope.objectives.labels import check_one_label_each
from loopscope.objectives.objective import Objective
from loopscope.objectives.spelling import as_objective
from loopscope.objectives.token_loss import IGNORE_INDEX
from loopscope.recurrence import check_loops, unroll
from loopscope.training.timetable import Timetable
from loopscope.training.trainer_loss_checks import (
    arguments_read,
    check_trainable,
    exported_in,
    name_unknown,
    text_mask,
)


class TrainerLoss(TrainerCallback):
    """Loss function for a Hugging Face Trainer: any of Loopscope's objectives, of an exported model.

    Give it as `compute_loss_func`. Labels are beside their own tokens, as transformers has them (shifted here). Every
    mean is one over the tokens that count in the whole step, penalties included: with gradient accumulation and with
    several processes, losses and gradients are those of one large batch, whatever of it is padding. (Terms that are no
    mean over tokens, `scale_anchor`, `shortcut` and `jacobian`, are each part's own, weighed by its tokens.)

    In training, the model's forward returns this loss where it is given labels. In evaluation the model is as it was,
    and the loss is the last loop's mean cross-entropy, the number that other models have.

    An objective that changes over training (a schedule, weights that move) is told of every step where the loss is one
    of the Trainer's `callbacks` too.

    Args:
        model: what the Trainer gets: an exported model, or one with PEFT's adapters.
        objective: what to train on, or its word.
        loops: depth to train at; None takes the model's own `config.num_loops`.

    Attributes:
        objective: what is trained on now.
        phase: of a schedule, the one that is trained now, from 1.

    Raises:
        ValueError: no exported model, or an objective that it cannot be trained on.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective | ObjectiveConfig | str = "dense",
        loops: int | None = None,
    ) -> None:
        self.model = model
        self.exported = exported_in(model)
        self.loops = check_loops(self.exported.config.num_loops if loops is None else loops)
        self.asked = objective
        phases: Any = objective.phases if isinstance(objective, ObjectiveConfig) else (objective,)
        for phase in phases:
            if isinstance(phase, ObjectiveConfig):
                phase.check_loops(self.loops)
            check_trainable(as_objective(phase), self.exported.model)
        self._objectives: list[Objective] = [as_objective(phase) for phase in phases]
        self.objective, self.phase = self._objectives[0], 1
        self._changes = len(phases) > 1 or self.objective.placement.moves
        self.timetable: Timetable | None = None
        self._lost: Tensor | None = (
            None  # whether a loss was not finite, on its device; read where one is logged
        )
        self._told = False
        self._called: tuple[nn.Module, dict[str, Any]] | None = None
        self.exported.forward = self._forward(self.exported)

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Any = None) -> Tensor:
        """Return the loss of the batch that the model was just called with; the Trainer calls this.

        Args:
            outputs: what the model returned.
            labels: [batch, seq], the tokens themselves; -100 is not counted.
            num_items_in_batch: labels that count in the whole optimizer step; None takes this batch's own.

        Raises:
            ValueError: labels or inputs that cannot be trained on; says which.
        """
        if labels is None:
            raise ValueError(
                "the batches have no labels; let the collator make them: "
                "DataCollatorForLanguageModeling(tokenizer, mlm=False)"
            )
        if self._called is None:
            logits = outputs["logits"]
            loss: Tensor = ForCausalLMLoss(logits, labels, logits.shape[-1], num_items_in_batch)
            return loss
        (model, inputs), self._called = self._called, None
        trained: Tensor = model(**inputs, labels=labels, num_items_in_batch=num_items_in_batch).loss
        bad = ~trained.detach().isfinite()
        self._lost = bad if self._lost is None else self._lost | bad
        return trained

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Lay the objective's phases over the steps of this training; refuse what a Trainer would leave out."""
        if args.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor is {args.label_smoothing_factor:g}, which the Trainer leaves out where it is "
                "given a loss, and so does this one; set it to 0"
            )
        scheduled = self.asked if isinstance(self.asked, ObjectiveConfig) else self.objective
        self.timetable = Timetable(scheduled, max(1, state.max_steps))
        self._lost, self._told = None, False

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the objective of this step, and tell it how much of its phase is done."""
        assert self.timetable is not None, "a training begins before its steps"
        phase = self.timetable.at(state.global_step + 1)
        self.objective, self.phase = self._objectives[phase.number - 1], phase.number
        self.objective.advance(phase.progress(state.global_step + 1))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell once of a loss that is not finite: a Trainer logs the mean of the others, or 0."""
        if not self._told and self._lost is not None and bool(self._lost):
            self._told = True
            warnings.warn(
                f"the loss was not finite by step {state.global_step}, and the Trainer logs others in its place "
                "(logging_nan_inf_filter): stop, and look at weights, learning rate and data",
                stacklevel=2,
            )

    def _forward(self, exported: Any) -> Callable[..., Any]:
        """The exported model's forward, but for training."""
        own = type(exported).forward
        names = signature(own)

        @wraps(own)
        def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
            if not (module.training and torch.is_grad_enabled()):
                return own(module, *args, **kwargs)
            bound = names.bind(module, *args, **kwargs).arguments
            bound |= bound.pop("kwargs", {})
            given = {name: value for name, value in bound.items() if name != "self" and value is not None}
            given = arguments_read(given)
            if "labels" in given:
                return CausalLMOutputWithPast(loss=self._loss(module, **given))
            given.pop("num_items_in_batch", None)
            self._called = _outermost(self.model), given
            return _Postponed()

        return MethodType(forward, exported)

    def _loss(
        self,
        exported: Any,
        input_ids: Tensor,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        num_items_in_batch: Any = None,
        num_loops: int | None = None,
    ) -> Tensor:
        if self._changes and self.timetable is None:
            raise ValueError(
                "this objective changes over training, and nobody tells it how far that is: give the loss to the "
                "Trainer twice, compute_loss_func=loss and callbacks=[loss]"
            )
        check_one_label_each(input_ids, labels)
        if input_ids.shape[1] < 2:
            raise ValueError(
                f"input_ids has shape {tuple(input_ids.shape)}; a text of one token has no next one"
            )
        ids, targets = input_ids[:, :-1], labels[:, 1:]
        counted = targets != IGNORE_INDEX
        mask = text_mask(attention_mask, counted)
        positions = None if position_ids is None else position_ids[..., :-1]
        loops = check_loops(self.loops if num_loops is None else num_loops)
        cache = exported._call_cache(exported.model.config, loops, None, ids, mask, positions)
        states = unroll(exported.model, ids, loops, kv_cache=cache)
        count = counted.sum()
        try:
            if count == 0:  # of a step whose other parts count: the same work, and a gradient of 0
                if num_items_in_batch is not None and not num_items_in_batch:
                    warnings.warn(
                        "no label of a whole step counts (all are -100), so it trains nothing; look at the collator",
                        stacklevel=2,
                    )
                return 0.0 * self.objective(states, torch.zeros_like(targets)).total
            sized = None if count == counted.numel() else counted
            loss = self.objective(states, targets, sized).total
        except (IndexError, RuntimeError) as error:
            name_unknown(exported.config.vocab_size, input_ids=ids, labels=targets[counted], cause=error)
            raise
        return loss if num_items_in_batch is None else loss * (count / num_items_in_batch)


class _Postponed(dict[str, Any]):
    """What a model in training returns before its labels are known."""

    def __missing__(self, key: str) -> Any:
        raise ValueError(
            f"this model is in training with a TrainerLoss, and its forward has no {key} without labels: call "
            "model.eval() for logits, or give labels for the loss"
        )

    def __getattr__(self, name: str) -> Any:
        return self[name] if name in ("logits", "loss") else super().__getattribute__(name)


def _outermost(model: nn.Module) -> nn.Module:
    """The DDP module whose forward is running, if one is: it has to see that call too."""
    running = DistributedDataParallel._get_active_ddp_module()
    return model if running is None else running
