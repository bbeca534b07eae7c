"""A model of others, read layer by layer over a cache of ours: a slot per loop and layer, so that tokens leave early.

Keys and values are those that its own layers compute, wherever in a text its tokens are. Before it is used, it has been
compared with the model's own forward at every exit, token by token, and where rows go on from different places.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.guards import device_of, evaluating
from loopscope.interop.foreign.text.attention_calls import AttentionOverCache
from loopscope.interop.foreign.text.layer_arguments import LayerArguments, layer_arguments
from loopscope.interop.foreign.text.layer_chain import layer_chain
from loopscope.interop.foreign.text.whole_text import READ_FIRST, ForeignModel, WholeText
from loopscope.interop.foreign.tracing.calls import ForwardStop, state_of
from loopscope.interop.foreign.tracing.forward_runs import repeatable
from loopscope.interop.foreign.tracing.traced_model import TracedModel
from loopscope.kv_cache import AbstractKVCache, Part, Slot
from loopscope.recurrence import AbstractLoopedLM, LoopContext, unroll


class ChainedModel(AbstractLoopedLM):
    """An adapted or wrapped model, whose layers are called one by one over the context's cache. Only for generation.

    Memory: beside the cache, tables of what its layers are called with, as long as the longest text; once for each
    length, what its forward makes of masks for a text of that length.
    """

    def __init__(self, inner: ForeignModel) -> None:
        super().__init__()
        self.__dict__["inner"] = inner  # whose parameters are not registered twice
        self.inner: ForeignModel
        self.chain = layer_chain(inner)
        self.loops, self.training = inner.loops, inner.training
        parts: dict[Part, Any] = {
            "embed": self.chain.prelude,
            "core": self.chain.core,
            "readout": self.chain.coda,
        }
        self.remembers = tuple(part for part, layers in parts.items() if layers)
        self._arguments: dict[int, dict[nn.Module, LayerArguments]] = {}  # by the longest text they are for

    def embed(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq dim"]:
        return self.inner.embed(input_ids)

    def embed_after(
        self, input_ids: Int[Tensor, "batch seq"], kv_cache: AbstractKVCache
    ) -> Float[Tensor, "batch seq dim"]:
        hidden = self.chain.tokens(input_ids)
        return self.chain.start(self._run(self.chain.prelude, hidden, "embed", 1, kv_cache))

    def core(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return self._run(self.chain.core, hidden, "core", loop, _cache_of(context))

    def remember(self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext) -> None:
        for index, layer in enumerate(self.chain.core):
            try:
                self._call(layer, hidden, Slot("core", loop, index), _cache_of(context), ends=True)
            except ForwardStop:
                continue

    def carry(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq dim"]:
        return self.chain.carry(hidden, context.embedded)

    def readout(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq features"]:
        hidden = self.chain.enter(hidden) if self.chain.coda else hidden
        return self.chain.leave(self._run(self.chain.coda, hidden, "readout", loop, _cache_of(context)))

    def head(self, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch vocab"]:
        return self.inner.head(features)

    def exit_gate(
        self, hidden: Float[Tensor, "batch seq dim"], loop: int, context: LoopContext
    ) -> Float[Tensor, "batch seq"] | None:
        return None if self.chain.gate is None else self.chain.gate(hidden)

    def _run(self, layers: Any, hidden: Tensor, part: Part, loop: int, kv_cache: AbstractKVCache) -> Tensor:
        for index, layer in enumerate(layers):
            hidden = self._call(layer, hidden, Slot(part, loop, index), kv_cache)
        return hidden

    def _call(
        self, layer: nn.Module, hidden: Tensor, slot: Slot, kv_cache: AbstractKVCache, ends: bool = False
    ) -> Tensor:
        arguments = self._arguments_for(kv_cache.capacity)[layer]
        call = arguments.at(hidden, kv_cache)
        with AttentionOverCache(kv_cache, slot, arguments.window, ends) as attention:
            output = call.module(*call.args, **call.kwargs)
        if attention.calls != 1:
            raise ValueError(
                f"a layer calls torch's scaled_dot_product_attention {attention.calls} times, not once; a model of "
                "transformers does with attn_implementation='sdpa'"
            )
        return state_of(output)

    def _arguments_for(self, longest: int) -> dict[nn.Module, LayerArguments]:
        if longest not in self._arguments:
            inner, module = self.inner, self.inner.module

            def run(ids: Tensor) -> Any:
                if isinstance(inner, TracedModel):
                    return inner.interceptor.own.run(ids, inner.trained_count)
                return inner.record(ids)

            with torch.no_grad(), evaluating(module), repeatable(module):
                found = layer_arguments(self.chain.layers, run, longest, device_of(module))
            self._arguments = {longest: found}  # those of one text: a table is as long as it
        return self._arguments[longest]


def _cache_of(context: LoopContext) -> AbstractKVCache:
    assert context.kv_cache is not None, "only generation runs it"
    return context.kv_cache


@torch.no_grad()
def check_chain(chained: ChainedModel) -> None:
    """Compare a chain with the model's own forward, over a cache: at every exit, token by token and from other places.

    Raises:
        ValueError: they differ, or a layer cannot be called so.
    """
    from loopscope.generation.store import Columns, Store
    from loopscope.generation.view import View

    inner, module, loops = chained.inner, chained.inner.module, chained.inner.loops + 1
    with evaluating(module), repeatable(module):
        whole = WholeText(inner, loops)
        ids, device = whole.ids, whole.ids.device
        store = Store(torch.zeros(len(ids), dtype=torch.int64, device=device), ids.shape[1])
        first = READ_FIRST
        apart = torch.tensor(
            [[first, first + 1], [first, first]], device=device
        )  # as tokens that are caught up
        one_by_one = [slice(place, place + 1) for place in range(first, ids.shape[1])]
        calls: list[Columns] = [slice(0, first), apart, *one_by_one]
        for columns in calls:
            view = View(store, columns)
            places = view.new_columns.expand(len(ids), -1)
            for state in unroll(chained, ids.gather(1, places), loops, kv_cache=view):
                difference = whole.difference(state.logits(), state.loop, places)
                if difference is not None:
                    raise ValueError(
                        f"called one by one, its layers do not give what its forward does ({difference})"
                    )
