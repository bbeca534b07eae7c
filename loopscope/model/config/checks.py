"""Which settings of a model contradict each other (refused), and which have no effect (warned about)."""

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from loopscope.model.config.chosen_variants import readout_of, start_of, variants_of
from loopscope.model.config.variants import CARRIES

if TYPE_CHECKING:
    from loopscope.model.config import ModelConfig


def check_model(config: "ModelConfig") -> None:
    """Refuse what cannot work, warn of what does nothing.

    Raises:
        ValueError: the first contradiction, with its reason and what to set.
    """
    for problem in _contradictions(config):
        raise ValueError(problem)
    for note in _without_effect(config):
        warnings.warn(note, stacklevel=2)


def _contradictions(config: "ModelConfig") -> Iterator[str]:
    attention, injection = config.attention, config.injection
    if config.heads % config.key_value_heads:
        yield (
            f"attention.key_value_heads {config.key_value_heads} does not divide heads {config.heads}: query "
            "heads share keys in equal groups; take a divisor"
        )
    rotary = ("rotary_base", "rotary_scaling", "rotary_bands", "rotary_formula", "rotary_fraction")
    turned = [name for name in rotary if _set(attention, name)]
    if turned and config.positions != "rotary":
        yield f"attention.{turned[0]} is set, but positions are {config.positions!r}; set positions: rotary"
    if config.positions == "rotary" and rotated_channels(config) < 2:
        yield (
            f"attention.rotary_fraction {attention.rotary_fraction} of {config.head_dim} channels per head leaves "
            "none to turn; raise it"
        )
    if (bands := attention.rotary_bands) is not None and not (0 < bands[0] < bands[1] and bands[2] >= 1):
        yield (
            f"attention.rotary_bands {list(bands)} are (low, high, length): turns over a text of `length` tokens, low "
            "above 0 and below high"
        )
    if injection.kind == "none" and not start_of(config).value("shows_input"):
        yield (
            f"start {config.start!r} without an injection: the input would never reach the loops. Set "
            "injection.kind (add, gated, concat, write), or start: embedding"
        )
    for variant in variants_of(config):
        if problem := variant.problem:
            yield problem
    for kind, shipped in CARRIES.shipped.items():
        for name in shipped.declaration.fields:
            if not config.unchanged(name) and kind not in config.carry:
                yield f"{name} is set but carry has no {kind!r} step; add it or remove the value"
    if config.coda_norm and not (config.coda and readout_of(config).declaration.norm):
        yield (
            f"coda_norm needs coda layers and a readout with a norm; coda is {config.coda}, readout "
            f"{config.readout.kind!r}"
        )
    if config.coda_matrix and not config.coda:
        yield "coda_matrix is on, but there is no coda; set coda, or turn it off"
    if config.loop_embedding == "modulation" and config.block.placement != "pre":
        yield (
            f"loop_embedding 'modulation' gates pre-norm branches; placement is {config.block.placement!r}: "
            "set block.placement: pre"
        )
    if config.loop_embedding == "sinusoidal" and config.dim % 2:
        yield f"loop_embedding 'sinusoidal' pairs channels; dim {config.dim} is odd"
    if config.gate_reads != "hidden" and not config.exit_gate:
        yield "gate_reads is set, but there is no gate; set exit_gate: true, or remove it"


def _without_effect(config: "ModelConfig") -> Iterator[str]:
    window = config.attention.window
    if window is not None and window >= config.sequence:
        yield f"attention.window {window} has no effect on windows of {config.sequence} tokens"
    if config.loops == 1:
        for name, on in (
            ("looped: attention", config.looped != "all"),
            ("adapters", config.adapters.rank > 0),
            ("loop_embedding: learned", config.loop_embedding == "learned"),
        ):
            if on:
                yield f"model.{name} has no effect with 1 loop: nothing differs between loops"
    if _set(config.adapters, "alpha") and not config.adapters.rank:
        yield "adapters.alpha has no effect while adapters.rank is 0"
    if config.block.width is not None and not config.unchanged("feed_forward"):
        yield f"feed_forward {config.feed_forward} has no effect: block.width {config.block.width} says the width"


def rotated_channels(config: "ModelConfig") -> int:
    """Channels of a head that rotary positions turn: an even number."""
    return 2 * int(config.head_dim * config.attention.rotary_fraction / 2)


def _set(section: object, name: str) -> bool:
    return bool(getattr(section, name) != type(section).model_fields[name].default)  # type: ignore[attr-defined]
