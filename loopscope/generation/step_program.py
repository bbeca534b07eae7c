"""A cached step of one model through `torch.compile`, kept for as long as the model lives.

The graph is traced from the model's own parts: all loops and layers, readout and head in one, with weights, cache and
place as inputs. It serves any length of text and, from two rows on, any number of them; one row has a graph of its own.
What else changes (a depth, a number format) is compiled anew. Compiled code is kept on disk by PyTorch, as ever.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from loopscope.generation.token_formulas import compile_with_formulas
from loopscope.generation.traced_cache import TracedCache
from loopscope.hooks import any_has_hooks
from loopscope.kv_cache import Slot
from loopscope.machine_limits import compiler_missing
from loopscope.recurrence import AbstractLoopedLM, LoopContext

MOST_GRAPHS = 16
"""Of one program: formats, devices and settings that a model is used in (which weights ask for gradients, threads,
autocast), one row or several."""
LISTENED_TO = "its modules have hooks, or forwards of their own, which would run once and never again"


class StepProgram:
    """The compiled step of a model at one depth.

    Attributes:
        failure: why it could not be compiled, once that has been tried.
        refused: why the last call had no graph, where others may.
    """

    def __init__(self, loops: int, slots: tuple[Slot, ...]) -> None:
        def step(
            model: AbstractLoopedLM,
            tokens: Int[Tensor, " rows"],
            column: Int[Tensor, "1"],
            pads: Int[Tensor, " rows"],
            keys: Sequence[Tensor],
            values: Sequence[Tensor],
        ) -> Float[Tensor, "rows vocab"]:
            return token_logits(model, loops, tokens, TracedCache(slots, keys, values, column, pads))

        self.failure: str | None = None
        self.refused: str | None = None
        self._compiled = _compiled(step)

    def __call__(self, model: AbstractLoopedLM, *tensors: Any) -> Float[Tensor, "rows vocab"] | None:
        """Return the logits after the newest tokens; None where the step cannot be compiled: `failure`, `refused`."""
        try:
            logits: Tensor = self._compiled(model, *tensors)
        except _too_many():
            self.refused = (
                f"the model has been compiled for {MOST_GRAPHS} states of it and its surroundings already"
            )
            return None
        except _failures() as error:
            self.failure = f"PyTorch's compiler refuses it ({_first_line(error)})"
            return None
        return logits


def token_logits(
    model: AbstractLoopedLM, loops: int, tokens: Int[Tensor, " rows"], kv_cache: TracedCache
) -> Float[Tensor, "rows vocab"]:
    """Return the logits after one new token of every row: what `unroll` does, written out for a tracer."""
    ids = tokens[:, None]
    hidden = model.embed_after(ids, kv_cache)
    context = LoopContext(ids, hidden, loops, kv_cache)
    for loop in range(1, loops + 1):
        hidden = model.core(hidden, loop, context)
        if loop < loops:
            hidden = model.carry(hidden, loop, context)
    return model.head(model.readout(hidden, loops, context))[:, -1]


def program_of(model: AbstractLoopedLM, loops: int, slots: tuple[Slot, ...]) -> StepProgram:
    """Return a model's program for a depth; the same one every time."""
    programs = _programs.setdefault(model, {})
    if (loops, slots) not in programs:
        programs[loops, slots] = StepProgram(loops, slots)
    return programs[loops, slots]


def graphs_made() -> int:
    """Return how many graphs PyTorch's compiler has made in this process, for whomever."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


_programs: WeakKeyDictionary[nn.Module, dict[Any, StepProgram]] = WeakKeyDictionary()


def cannot_compile(model: AbstractLoopedLM) -> str | None:
    """Return why a model's cached step is not compiled here, as far as that shows beforehand; None: it may be."""
    if not model.traceable:
        return f"{type(model).__name__} does not say that its parts can be traced (`traceable`)"
    if any_has_hooks(model.modules()):
        return LISTENED_TO
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1:
        return "its weights are on several devices"
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return "a mode is active that sees every operation, such as weights in another type, or half precision in fp32"
    kind = next(iter(devices)).type
    if kind == "cpu":
        missing = compiler_missing()
        return None if missing is None else f"it takes a C++ compiler on a CPU, and {missing}"
    if kind == "cuda":
        return None if find_spec("triton") else "it takes triton on a GPU, which is not installed"
    return f"there is no compiler for {kind}"


def _compiled(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    settings: dict[str, Any] = {"fullgraph": True, "backend": compile_with_formulas}
    own: dict[str, Any] = {"recompile_limit": MOST_GRAPHS, "isolate_recompiles": True}
    try:  # every program counts its own graphs
        compiled: Callable[..., Tensor] = torch.compile(step, **own, **settings)
    except TypeError:  # a PyTorch that does not know of that
        compiled = torch.compile(step, **settings)
    return compiled


def _failures() -> tuple[type[Exception], ...]:
    """What compilers raise: loaded where one is used, which takes a second."""
    import torch._dynamo.exc
    import torch._inductor.exc

    return torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError, NotImplementedError


def _too_many() -> tuple[type[Exception], ...]:
    """What says that there are as many graphs as there may be."""
    import torch._dynamo.exc

    limit = getattr(torch._dynamo.exc, "FailOnRecompileLimitHit", None)
    return () if limit is None else (limit,)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
