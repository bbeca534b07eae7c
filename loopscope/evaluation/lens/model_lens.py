"""`loopscope.lens`: what is asked of a model, state by state. Every question is one run, up to where it is answered."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from loopscope.evaluation.lens.patches import STATE_PLACES, Patch, place_text
from loopscope.evaluation.lens.recorder import LoopRecorder
from loopscope.evaluation.lens.sites import LoopSites, find_sites
from loopscope.evaluation.lens.views import LoopView, view_of
from loopscope.guards import evaluating
from loopscope.objectives.labels import check_range
from loopscope.recurrence import (
    AbstractLoopedLM,
    check_input_ids,
    check_loops,
    check_model_and_ids,
    unroll,
    vocabulary_size,
)


def lens(model: Any, input_ids: Any, loops: int | None = None) -> "Lens":
    """Look into every loop and layer of a looped model, its own or one that was adapted or wrapped.

    Args:
        model: any looped model.
        input_ids: token ids, [batch, seq].
        loops: how deep to look, from 1 up; None: the trained depth.

    Returns:
        What is asked by loop and layer, and patched; see `Lens`. Its layers were found in a run of two loops.

    Raises:
        ValueError: no looped model, ids that are no [batch, seq] of integers or not in its vocabulary, more tokens than
            the model has positions, or loops below 1.

    Example:
        >>> seen = loopscope.lens(model, ids)
        >>> seen[2, 3].after  # what layer 3 (from 0) returns in loop 2 (from 1)
        >>> seen.patch(loop=2, layer=3, with_=torch.zeros_like).last().logits()
        >>> for view in seen: print(view.loop, view.rms.mean(), view.logits().argmax(dim=-1))
    """
    check_model_and_ids(model, input_ids)
    check_input_ids(input_ids)
    limit = model.positions_limit
    if limit is not None and input_ids.shape[1] > limit:
        raise ValueError(
            f"input_ids has {input_ids.shape[1]} tokens, and the model has {limit} positions: shorten it"
        )
    depth = check_loops(model.loops if loops is None else loops)
    with torch.no_grad(), evaluating(model):
        check_range(input_ids, input_ids[:0], vocabulary_size(model, input_ids))
    return Lens(model, input_ids, depth, find_sites(model, input_ids, depth))


@dataclass(frozen=True)
class Lens:
    """A model and a batch, to look into by loop (from 1) and layer (from 0, in the order of a loop's calls).

    `for view in lens` streams the loops: one loop's states are alive at a time. `lens[loop, layer]` runs to that loop
    and keeps that layer's states alone; `lens[loop]` keeps that loop's; `states` keeps those that are named, of any
    loops, in one run. The model runs in evaluation mode, and no gradient is recorded.

    Attributes:
        model: the model, unchanged.
        input_ids: [batch, seq].
        loops: how deep it looks.
        found: the layers of a loop.
        patches: states that are replaced while it runs.
    """

    model: AbstractLoopedLM
    input_ids: Int[Tensor, "batch seq"]
    loops: int
    found: LoopSites
    patches: Sequence[Patch] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of a loop by their paths in the model; one that is called twice in a loop stands there twice."""
        return tuple(site.name for site in self.found.sites)

    def __iter__(self) -> Iterator[LoopView]:
        return self.stream()

    def stream(self, layers: int | Collection[int] | None = None) -> Iterator[LoopView]:
        """Yield the loops in order, each with the states of this layer, or of these; None: of all.

        Raises:
            ValueError: a layer that is not there.
        """
        wanted = None if layers is None else [self._check_layer(layer) for layer in _listed(layers)]
        return self._run(self.loops, lambda loop: wanted)

    def __getitem__(self, place: Any) -> Any:
        """Return a loop's `LoopView` (`lens[2]`), or a layer's `LayerStates` in it (`lens[2, 3]`).

        Raises:
            ValueError: a loop or a layer that is not there.
        """
        if not isinstance(place, tuple):
            return self._at(self._check_loop(place), None)
        if len(place) != 2:
            raise ValueError(f"lens[{', '.join(map(str, place))}]: give a loop, or a loop and a layer")
        loop, layer = self._check_loop(place[0]), self._check_layer(place[1])
        return self._at(loop, [layer]).layers[0]

    def last(self) -> LoopView:
        """Run all loops; return the last one's view."""
        return self._at(self.loops, [])

    def states(
        self,
        at: Any = "after",
        loops: int | Collection[int] | None = None,
        layers: int | Collection[int] | None = None,
    ) -> dict[tuple[int, int], Tensor]:
        """Return one kind of state by (loop, layer), in one run; only these are kept.

        Args:
            at: which of `LayerStates`; where a layer has none, it is left out.
            loops: one or several, from 1; None: all.
            layers: one or several, from 0; None: all.

        Raises:
            ValueError: a loop, a layer or a kind of state that is not there.
        """
        self._check_place(at)
        every_loop, every_layer = range(1, self.loops + 1), range(len(self.layers))
        asked = [self._check_loop(loop) for loop in _listed(every_loop if loops is None else loops)]
        wanted = [self._check_layer(layer) for layer in _listed(every_layer if layers is None else layers)]
        found: dict[tuple[int, int], Tensor] = {}
        for view in self._run(max(asked, default=0), lambda loop: wanted if loop in asked else []):
            for states in view.layers:
                state = getattr(states, at)
                if state is not None:
                    found[states.loop, states.layer] = state
        return found

    def patch(
        self,
        loop: int,
        layer: int | None,
        with_: Any,
        at: Any = "after",
    ) -> "Lens":
        """Return a lens that replaces one state and runs on with it. Patches add up.

        Args:
            loop: from 1.
            layer: from 0; None: the loop's H_k, which its readout and the next loop get.
            with_: the state, of the same shape, type and device; or a function of the state that is there.
            at: which of the layer's states; see `LayerStates`.

        Raises:
            ValueError: a place that is not there or cannot be replaced, or a state that does not fit it.
        """
        self._check_loop(loop)
        self._check_place(at)
        kind = self.found.hidden
        if layer is None:
            if at != "after":
                raise ValueError(
                    f"layer is None, the loop's H_k, which has no {at!r}; name a layer, or leave at out"
                )
        else:
            site = self.found.sites[self._check_layer(layer)]
            if at not in site.kinds:
                raise ValueError(
                    f"layer {layer} ({site.name}) has no {at!r} that was recognised; it has {', '.join(site.kinds)}"
                )
            middle = site.parts.middle
            if (
                at == "middle"
                and middle is not None
                and middle.side == "called with"
                and middle.operation is None
            ):
                raise ValueError(
                    f"what makes 'middle' of layer {layer} ({site.name}) is no operation of torch that can be answered "
                    "for; patch 'attention', what is added to it"
                )
            kind = site.kinds[at]
        if not callable(with_) or isinstance(with_, Tensor):
            with_ = kind.check(with_, place_text(loop, layer, at)).detach().clone()
        return replace(self, patches=(*self.patches, Patch(loop, layer, at, with_, kind)))

    def _at(self, loop: int, layers: Sequence[int] | None) -> LoopView:
        """The view of one loop, with these layers' states."""
        for view in self._run(loop, lambda running: layers if running == loop else []):
            if view.loop == loop:
                return view
        raise AssertionError("the loop was checked")

    def _run(self, until: int, wanted: Callable[[int], Sequence[int] | None]) -> Iterator[LoopView]:
        """Run to a loop, as part of the whole depth. `wanted` gives the layers of a loop to keep; None: all."""
        states = unroll(self.model, self.input_ids, self.loops)
        before: Tensor | None = None
        for loop in range(1, until + 1):
            patches = [patch for patch in self.patches if patch.loop == loop]
            recorder = LoopRecorder(self.found, loop, wanted(loop), patches)
            with torch.no_grad(), evaluating(self.model), recorder.watching(self.model):
                state = next(states)
            seen = view_of(state, recorder.layers, before)
            before = state.hidden
            del recorder, state
            yield seen
            del seen
        states.close()

    def _check_loop(self, loop: Any) -> int:
        if isinstance(loop, bool) or not isinstance(loop, int) or not 1 <= loop <= self.loops:
            raise ValueError(
                f"loop is {loop!r}; this lens sees loops 1 to {self.loops} (deeper: loopscope.lens(…, loops=…))"
            )
        return loop

    def _check_layer(self, layer: Any) -> int:
        if not self.layers:
            raise ValueError(
                f"layer is {layer!r}, but the layers of this model's loop are not known: only H_k is"
            )
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < len(self.layers):
            raise ValueError(
                f"layer is {layer!r}; a loop of this model has layers 0 to {len(self.layers) - 1}: "
                f"{', '.join(self.layers[:8])}{', …' if len(self.layers) > 8 else ''}"
            )
        return layer

    def _check_place(self, at: Any) -> None:
        if at not in STATE_PLACES:
            raise ValueError(f"at is {at!r}; a layer has {', '.join(STATE_PLACES)}")


def _listed(asked: int | Collection[int]) -> Collection[int]:
    """Return what was asked for as a collection: one number may stand alone."""
    return asked if isinstance(asked, Collection) else (asked,)
