"""Which tensors of a model are one: read from a model, and held against what a file of weights says.

A tied tensor is stored once, under its first name. A file that has it twice does not fit: which of the two would count?
Nor does a tied file fit a model whose parts are apart: one of them would be left as it was initialised.
"""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

UNTIED_HEAD = "unembedding.weight"
"""A head of its own, of a Loopscope model; without it the head is the token embedding."""


def ties_of(tensors: Mapping[str, "Tensor"]) -> dict[str, str]:
    """Return the names of a state dict whose tensor an earlier name has, with that name: head.weight: embed.weight.

    Two are one where they begin at the same place in memory, with the same shape and strides.
    """
    first: dict[tuple[object, ...], str] = {}
    ties = {}
    for name, tensor in tensors.items():
        if tensor.numel() == 0 or tensor.device.type == "meta":
            continue
        own = getattr(
            tensor, "to_local", lambda one=tensor: one
        )()  # of a tensor in shards this process' share
        place = (tensor.device, own.data_ptr(), tuple(tensor.shape), tensor.stride())
        if place in first:
            ties[name] = first[place]
        else:
            first[place] = name
    return ties


def tie_problem(
    there: Collection[str], here: Collection[str], ties: Mapping[str, str], own: Mapping[str, str]
) -> str | None:
    """Say in which tensors a file and a model are not tied alike; None where they are.

    Args:
        there: names of the file's tensors.
        here: names of the model's, ties included.
        ties: what the file says of tied tensors, as `ties_of` has it.
        own: the model's.
    """
    for alias, name in own.items():
        if alias in there and name in there:
            return f"has {alias} and {name} apart, and this model ties them; build the model untied"
    for alias, name in ties.items():
        if alias in here and name in here and own.get(alias) != name:
            return f"has {alias} tied to {name}, and this model has them apart; build the model tied"
    if UNTIED_HEAD in there and UNTIED_HEAD not in here:
        return (
            f"has a head of its own ({UNTIED_HEAD}), and this model's is tied to the token embedding; set model.tied: "
            "false"
        )
    if UNTIED_HEAD in here and UNTIED_HEAD not in there and UNTIED_HEAD not in ties:
        return (
            f"has a head tied to the token embedding, and this model's is its own ({UNTIED_HEAD}); "
            "set model.tied: true"
        )
    return None
