"""Steps over the cache of a family's own `generate`, at any depth that its forward can be set to.

`generate` makes ready what it makes ready for itself: a cache of the kind that was asked for, masks, positions. Each
step is then the family's own `prepare_inputs_for_generation` and its forward; drawing, stopping and streaming are ours,
so that they mean what they mean for any model.

The forward reads the whole prompt in its first call and one token in every later one, as under `generate`: where a
model's logits depend on how a text is cut, this is the cut. The number of loops is set for every call, and put back
after it: nobody can change it while the cache is held.

Rows whose text has ended stay in the batch, since not every kind of cache can lose one.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from loopscope.generation.steps import AbstractSteps, StepOutput

AtDepth = Callable[[int], AbstractContextManager[Mapping[str, Any]]]
"""Sets a module to so many loops for a while, and gives what its forward is to be called with beside."""

_PIECE = "next_sequence_length"
"""How `prepare_inputs_for_generation` is told how many tokens are new."""


def has_own_generate(module: nn.Module) -> bool:
    """Return whether a module generates as transformers' models do."""
    names = ("generate", "prepare_inputs_for_generation", "_update_model_kwargs_for_generation")
    if not all(callable(getattr(module, name, None)) for name in names):
        return False
    makes_ready = _PIECE in inspect.signature(module.prepare_inputs_for_generation).parameters  # type: ignore[arg-type]
    return makes_ready and "custom_generate" in inspect.signature(module.generate).parameters  # type: ignore[arg-type]


class OwnCacheSteps(AbstractSteps):
    """Steps of rows of one length over the family's own cache.

    Args:
        at_depth: sets the module's forward to a depth.
        kind: of the cache, as `generate(cache_implementation=…)` takes it; None: what the family takes by itself.
        capacity: tokens of the longest text that may come.
    """

    def __init__(
        self, module: nn.Module, at_depth: AtDepth, loops: int, kind: str | None, capacity: int
    ) -> None:
        self._module: Any = module
        self._at_depth, self._loops, self._kind, self._capacity = at_depth, loops, kind, capacity
        self._waiting: Tensor | None = None  # tokens that no forward has read yet
        self._ids: Tensor | None = None  # those that were read
        self._made_ready: dict[str, Any] = {}
        self._output: Any = None
        self._going: Tensor | None = None  # rows of the batch whose text goes on; None: all

    def prefill(self, input_ids: Int[Tensor, "rows seq"]) -> None:
        """Keep the tokens for the forward of the first step; of a prompt in pieces, all but the last are read here."""
        if self._waiting is not None:
            self._read()
        self._waiting = input_ids

    def step(self, tokens: Int[Tensor, " rows"]) -> StepOutput:
        new = tokens
        if self._going is not None:
            assert self._ids is not None, "rows end after a step"
            new = self._ids.new_zeros(len(self._ids))  # of rows that have ended, any token
            new[self._going] = tokens
        column = new[:, None]
        self._waiting = column if self._waiting is None else torch.cat([self._waiting, column], dim=1)
        self._read()
        logits = self._output.logits[:, -1]
        if self._going is not None:
            logits = logits[self._going]
        return StepOutput(logits, torch.full((len(tokens),), self._loops))

    def select(self, rows: Int[Tensor, " rows"]) -> None:
        self._going = rows if self._going is None else self._going[rows]

    def _read(self) -> None:
        """Run the forward over the tokens that wait."""
        new = self._waiting
        assert new is not None
        first = self._ids is None
        self._ids = new if self._ids is None else torch.cat([self._ids, new], dim=1)
        with self._at_depth(self._loops) as given:
            if first:
                self._made_ready = self._make_ready(new)
            else:
                self._made_ready = self._module._update_model_kwargs_for_generation(
                    self._output, self._made_ready, is_encoder_decoder=False, num_new_tokens=new.shape[1]
                )
            inputs = self._module.prepare_inputs_for_generation(
                self._ids,
                is_first_iteration=first,
                **{_PIECE: None if first else new.shape[1]},
                **self._made_ready,
            )
            self._output = self._module(**{**inputs, **given}, return_dict=True)
        self._waiting = None

    def _make_ready(self, ids: Tensor) -> dict[str, Any]:
        """What the family's `generate` calls its forward with, the cache among it; it is stopped before it begins."""

        def stop(
            model: Any,
            input_ids: Tensor,
            logits_processor: Any = None,
            stopping_criteria: Any = None,
            generation_config: Any = None,
            synced_gpus: Any = None,
            streamer: Any = None,
            **made_ready: Any,
        ) -> dict[str, Any]:
            return made_ready

        kind = {} if self._kind is None else {"cache_implementation": self._kind}
        count = max(1, self._capacity - ids.shape[1])
        with quiet():
            made_ready: dict[str, Any] = self._module.generate(
                ids, custom_generate=stop, max_new_tokens=count, do_sample=False, use_cache=True, **kind
            )
        return made_ready


@contextmanager
def quiet() -> Iterator[None]:
    """Let transformers log nothing but errors meanwhile: what it advises of its own `generate` is not of ours."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
