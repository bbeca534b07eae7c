"""Calls of a module's parts: recorded while its own forward runs, and made again with another hidden state.

What a block is called with besides the hidden state (rotary tables, masks, embeddings) is whatever the module's
own forward passed. So an adapter names the parts and never rebuilds their arguments, and a version that passes
something new still works.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, TypeGuard

from jaxtyping import Float
from torch import Tensor, nn

from loopscope.guards import exchanged

Forward = Callable[..., Any]


class ForwardStop(BaseException):
    """Ends a run of a module's forward early, and carries out what it was run for as `value`.

    Not an Exception, so that an `except Exception` in the module's code lets it pass.
    """

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Method:
    """A method of a module, or a function that is looked up by its name: a part, as a module with a forward is."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner, self.name = owner, name

    @property
    def forward(self) -> Forward:
        """What is called under its name at the moment."""
        found: Forward = getattr(self.owner, self.name)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Method":
        return Method(
            deepcopy(self.owner, memo) if isinstance(self.owner, nn.Module) else self.owner, self.name
        )


CalledPart = nn.Module | Method


@dataclass(frozen=True)
class Call:
    """One call of one part of a module. `slot` is where its hidden state is: a position, or a keyword."""

    module: CalledPart
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    slot: int | str | None = None
    output: Any = None

    @property
    def hidden(self) -> Tensor:
        """The hidden state that it was called with."""
        assert self.slot is not None
        value: Tensor = self.args[self.slot] if isinstance(self.slot, int) else self.kwargs[self.slot]
        return value

    def with_hidden(self, hidden: Any, **changes: Any) -> "Call":
        """Return this call with another hidden state; keywords in `changes` replace those that were passed."""
        assert self.slot is not None
        args, kwargs = list(self.args), {**self.kwargs}
        kwargs.update({name: value for name, value in changes.items() if name in kwargs})
        if isinstance(self.slot, int):
            args[self.slot] = hidden
        else:
            kwargs[self.slot] = hidden
        return replace(self, args=tuple(args), kwargs=kwargs)

    def repeat(self, hidden: Float[Tensor, "..."], **changes: Any) -> Float[Tensor, "..."]:
        """Call the part again with another hidden state, and return the hidden state that comes out."""
        call = self.with_hidden(hidden, **changes)
        return state_of(call.module(*call.args, **call.kwargs))

    def without_states(self) -> "Call":
        """Return this call without its hidden states, so that keeping it keeps no activations alive."""
        emptied = None if self.output is None else with_state(self.output, state_of(self.output).new_empty(0))
        return replace(self.with_hidden(None), output=emptied)


def call_of(
    module: CalledPart, args: Sequence[Any], kwargs: Mapping[str, Any], name: str | None = None
) -> Call:
    """Describe a call, and find its hidden state: the argument `name`, or else the first float tensor.

    A tensor with three axes is preferred, so that a table or a mask before it is passed over.

    Raises:
        ValueError: no such argument, or no float tensor among the arguments.
    """
    values: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    if name is not None:
        names = list(inspect.signature(module.forward).parameters)
        keys = {name, names.index(name)} if name in names else {name}
        matches = [slot for slot, _ in values if slot in keys]
        if not matches:
            raise ValueError(
                f"hidden is {name!r}, but {title(module)} is called with {len(args)} positional arguments "
                f"and the keywords {', '.join(kwargs) or 'none'}; its forward takes ({', '.join(names)})"
            )
        return Call(module, tuple(args), dict(kwargs), matches[0])
    floats = [slot for slot, value in values if is_float(value)]
    states = [slot for slot, value in values if is_float(value) and value.ndim == 3]
    if not floats:
        raise ValueError(
            f"{title(module)} is called without a float tensor, so its hidden state is not known; "
            "name the argument with hidden=..."
        )
    return Call(module, tuple(args), dict(kwargs), (states or floats)[0])


def is_float(value: Any) -> TypeGuard[Tensor]:
    """Whether it is a tensor of floats."""
    return isinstance(value, Tensor) and value.is_floating_point()


def state_of(output: Any) -> Tensor:
    """Return the hidden state in what a part returned: the tensor, or the first float tensor of a tuple or mapping.

    Raises:
        ValueError: none there.
    """
    for value in [output] if isinstance(output, Tensor) else _items(output).values():
        if is_float(value):
            return value
    raise ValueError(
        f"a part returned {type(output).__name__} without a float tensor in it; it has no hidden state"
    )


def with_state(output: Any, hidden: Tensor) -> Any:
    """Return what a part returned, of the structure it had, with another hidden state in it."""
    if isinstance(output, Tensor):
        return hidden
    key = next(key for key, value in _items(output).items() if is_float(value))
    return with_entries(output, {key: hidden})


def apart(output: Any) -> Any:
    """Return what a part returned with its hidden state copied: a forward may write into it (`h += injected`)."""
    return with_state(output, state_of(output).clone())


def with_entries(output: Any, entries: Mapping[Any, Tensor]) -> Any:
    """Return what a part returned, of the structure it had, with other tensors under some of its keys or places."""
    if not entries:
        return output
    if isinstance(output, Mapping):
        changed: Any = copy(output)
        for key, value in entries.items():
            changed[key] = value
        return changed
    items = {**_items(output), **entries}
    return type(output)(*items.values()) if hasattr(output, "_fields") else type(output)(items.values())


def entries_of(output: Any) -> dict[Any, Tensor]:
    """Return the float tensors in what a part returned that are not its hidden state, by key or place."""
    floats = {key: value for key, value in _items(output).items() if is_float(value)}
    return dict(list(floats.items())[1:])


def _items(output: Any) -> dict[Any, Any]:
    if isinstance(output, Mapping):
        return dict(output)
    return dict(enumerate(output)) if isinstance(output, tuple | list) else {}


def title(part: CalledPart) -> str:
    """Return what a message calls a part."""
    return part.name if isinstance(part, Method) else type(part).__name__


def stand_in(part: CalledPart, answer: Callable[[Forward], Forward]) -> AbstractContextManager[None]:
    """Make `answer(its own forward)` the part's forward for a while; afterwards it is as it was."""
    owner, name = (part.owner, part.name) if isinstance(part, Method) else (part, "forward")
    # Arguments are found by their names in its signature.
    return exchanged(owner, lambda own: wraps(own)(answer(own)), name)


@contextmanager
def recording(parts: Sequence[CalledPart]) -> Iterator[list[Call]]:
    """Record every call of these parts, in order, while the block runs."""
    calls: list[Call] = []

    def watched(part: CalledPart) -> Callable[[Forward], Forward]:
        def answer(original: Forward) -> Forward:
            def forward(*args: Any, **kwargs: Any) -> Any:
                output = original(*args, **kwargs)
                stateless = not any(is_float(value) for value in (*args, *kwargs.values()))
                call = Call(part, args, kwargs) if stateless else call_of(part, args, kwargs)
                calls.append(replace(call, output=output))
                return output

            return forward

        return answer

    with ExitStack() as stack:
        for part in dict.fromkeys(parts):
            stack.enter_context(stand_in(part, watched(part)))
        yield calls


def first_call(run: Callable[[], Any], part: CalledPart) -> Call:
    """Run until `part` is called, and no further; return that call.

    Raises:
        ValueError: the run ended without it.
    """

    def answer(original: Forward) -> Forward:
        def forward(*args: Any, **kwargs: Any) -> Any:
            raise ForwardStop(call_of(part, args, kwargs))

        return forward

    try:
        with stand_in(part, answer):
            run()
    except ForwardStop as end:
        call: Call = end.value
        return call
    raise ValueError(f"the module's forward never called its {title(part)}")
