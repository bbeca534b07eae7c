"""A looped model of an unlooped one: which of its layers are looped, and with what around them.

The layers become ours (`retrofit_families` says under which names), so that everything here works on the result: it
trains, keeps its keys and values, is audited and saved as any other. Whether they compute what they did is measured
each time: the source's own logits, with the layers that are kept, against ours at one loop.

Form as in McLeish et al., "Teaching Pretrained Language Models to Think Deeper with Retrofitted Recurrence" (arXiv
2511.07384): first layers as prelude, last ones as loop and coda, what is between them dropped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from loopscope.interop.huggingface.retrofit_plan import LayerPlaces, RetrofitPlan
from loopscope.interop.huggingface.retrofit_source import RetrofitFolder, RetrofitSource
from loopscope.model.config import ModelConfig
from loopscope.model.looped import LoopedTransformer
from loopscope.recurrence import unroll

RECIPE = (
    *("loops", "sequence", "readout", "carry", "carry_settings", "damping", "decay", "injection"),
    *("start", "start_settings", "loop_embedding", "looped", "adapters", "exit_gate", "gate_reads"),
    *("coda_norm", "coda_matrix", "dropout"),
)
"""Settings of `model` that say what is around the source's layers. All others are the source's own."""
LONGEST_TRAINED = 1024
"""Tokens of a training window where nobody says, of a source that was made for more."""
SAME_LOGITS = 1e-4
"""Difference of logits, of the largest of them, that two ways to compute the same may have in fp32."""


@dataclass(frozen=True)
class Retrofitted:
    """A looped model of a source, and how it compares.

    Attributes:
        model: in evaluation mode, in fp32.
        places: which layers it is made of.
        new: its parameters that the source has not, at their own start.
        exact: whether the source's logits, with the layers that are kept, are those of its layers here at one loop,
            bit for bit.
        difference: the largest difference of these logits.
        own_difference: the same for the model itself at one loop: 0 where nothing around the layers changes it.
        batch: rows and tokens that were compared.
    """

    model: LoopedTransformer
    places: LayerPlaces
    new: tuple[str, ...]
    exact: bool
    difference: float
    own_difference: float
    batch: tuple[int, int]


def loop_source(
    source: RetrofitSource, plan: RetrofitPlan, recipe: Mapping[str, Any] | None = None
) -> Retrofitted:
    """Make a looped model of a source.

    Args:
        recipe: settings of `model` (see `RECIPE`): loops, readout, carry, injection, … The readout is the source's own
            norm, a training window its longest text or 1024 tokens, if it says nothing.

    Raises:
        ValueError: layers that there are not, settings that do not fit or are the source's, or a source whose logits
            its layers here do not give.
    """
    recipe, places = recipe or {}, plan.places(source.found.layers)
    check_recipe(recipe)
    own = _own_settings(source.found, places, recipe)
    config = _config({**own, **recipe})
    plain = _config({**own, "loops": 1})
    state = dict(_converted(source, places, config.sequence))
    ids = _some_ids(config)
    with torch.device("meta"):  # it shares the tensors that it is given
        reference = LoopedTransformer(plain).eval()
    reference.load_state_dict(state, assign=True)
    theirs, ours = source.logits(ids, places.kept), _logits(reference, ids)
    difference, largest = float((theirs - ours).abs().max()), float(theirs.abs().max())
    if not difference <= SAME_LOGITS * max(1.0, largest):  # not a number, too
        raise ValueError(
            f"{source.found.folder}: logits of its layers here differ from the model's own by {difference:.3g}, of at "
            f"most {largest:.3g}: this model is not what its config says"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LoopedTransformer(config).eval()
    new = _fill(model, state)
    return Retrofitted(
        model,
        places,
        new,
        torch.equal(theirs, ours),
        difference,
        float((theirs - _logits(model, ids)).abs().max()),
        (ids.shape[0], ids.shape[1]),
    )


def check_recipe(recipe: Mapping[str, Any]) -> None:
    """Refuse settings of `model` that a source decides.

    Raises:
        ValueError: which, and which there are.
    """
    if others := sorted(set(recipe) - set(RECIPE)):
        raise ValueError(
            f"model.{others[0]} is the source's own and cannot be set; what can: {', '.join(RECIPE)}"
        )
    if recipe.get("loop_embedding") == "modulation":
        raise ValueError(
            "model.loop_embedding modulation replaces the gains of the layers' norms, which the source's layers need; "
            "take learned or sinusoidal"
        )


def _own_settings(found: RetrofitFolder, places: LayerPlaces, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a source says of the model: its layers' settings, its norm as readout, the text it was made for."""
    sequence, learned = (
        int(recipe.get("sequence") or found.positions),
        found.settings["positions"] == "learned",
    )
    if learned and sequence > found.positions:
        raise ValueError(f"sequence is {sequence}, and the source has {found.positions} positions; lower it")
    if not learned and not recipe.get("sequence"):
        sequence = min(sequence, LONGEST_TRAINED)
    return {
        **found.settings,
        **{"layers": len(places.loop), "prelude": len(places.prelude), "coda": len(places.coda)},
        **{"tied": found.tied, "readout": found.family.readout, "sequence": sequence, "dropout": 0.0},
    }


def _config(settings: Mapping[str, Any]) -> ModelConfig:
    try:
        return ModelConfig(**settings)
    except ValidationError as error:
        texts = (
            f"model.{'.'.join(map(str, entry['loc']))}: {entry['msg']}".replace("Value error, ", "")
            for entry in error.errors()
        )
        raise ValueError("; ".join(texts).replace("model.: ", "")) from None


def _converted(source: RetrofitSource, places: LayerPlaces, sequence: int) -> Iterator[tuple[str, Tensor]]:
    """The source's tensors under the names that a `LoopedTransformer` of their config has."""
    family = source.found.family
    for ours, theirs in family.ends.items():
        if ours == "unembedding" and source.found.tied:
            continue
        for kind, tensor in source.module.get_submodule(theirs).named_parameters():
            yield (
                f"{ours}.{kind}",
                tensor.detach()[:sequence] if ours == "position_embedding" else tensor.detach(),
            )
    for part, layers in (("prelude", places.prelude), ("layers", places.loop), ("coda", places.coda)):
        for place, layer in enumerate(layers):
            for name, parts in family.layer_weights(source.stack[layer]):
                joined = parts[0] if len(parts) == 1 else torch.cat(parts)
                yield f"{part}.{place}.{name}", joined


@torch.no_grad()
def _fill(model: LoopedTransformer, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Copy what the source has into a model, and return the names of what it has not.

    What is new and learned starts where it changes least: `concat` with the state as it is, vectors of loops at zero.
    """
    here = dict(model.named_parameters())
    for name, parameter in here.items():
        if name in state:
            parameter.copy_(state[name])
    new = tuple(name for name in here if name not in state)
    if (mix := here.get("injection.mix.weight")) is not None:
        mix.zero_().fill_diagonal_(1.0)
    if (table := here.get("loop_embedding.table.weight")) is not None:
        table.zero_()
    return new


def _some_ids(config: ModelConfig) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.vocabulary, (2, min(48, config.sequence)), generator=generator)


@torch.no_grad()
def _logits(model: LoopedTransformer, ids: Tensor) -> Tensor:
    (state,) = unroll(model, ids, 1)
    return state.logits()
