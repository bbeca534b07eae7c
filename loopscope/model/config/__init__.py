"""The settings of a looped transformer: small, frozen, and checked against each other before work starts."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from loopscope.model.config.checks import check_model
from loopscope.model.config.sections import (
    AdapterConfig,
    AttentionConfig,
    BlockConfig,
    InjectionConfig,
    VariantSettings,
)
from loopscope.model.config.variants import CARRIES, READOUTS, STARTS

LoopEmbedding = Literal["none", "learned", "sinusoidal", "modulation"]


class ReadoutConfig(BaseModel):
    """How H_k becomes what the head reads. All settings but `kind` and `settings` belong to the alpha readout."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    kind: str = "rmsnorm"
    """rmsnorm, layernorm, raw, final-only, alpha; package.module:ClassName for one of your own, or its short name."""
    alpha: float = Field(0.5, ge=0, le=1)
    """Exponent of the scale: 0 hides it, 1 is raw. The start value where it is learned."""
    learned: bool = False
    """Learn the exponent."""
    per_loop: bool = False
    """One exponent (and reference) per loop; loops past the trained depth use the last one."""
    s_ref: Literal["fixed", "learned", "ema"] = "fixed"
    """The reference scale: a constant, a learned number, or a moving average of the scale in training."""
    s_ref_value: float = Field(1.0, gt=0, le=1e30)
    """The constant, or where the learned number starts."""
    ema_decay: float = Field(0.99, gt=0, lt=1)
    """Of the moving average: what it keeps at every step."""
    alpha_min: float = Field(0.0, ge=0, le=1)
    """Least exponent that is learned."""
    alpha_max: float = Field(1.0, ge=0, le=1)
    """Largest exponent that is learned."""
    settings: VariantSettings = {}
    """Of a readout of your own: what it declares."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "ReadoutConfig":
        for kind, shipped in READOUTS.shipped.items():
            given = [name for name in shipped.declaration.fields if self._changed(name)]
            if given and kind != self.kind:
                raise ValueError(
                    f"{', '.join(given)} belong to readout kind {kind!r} and do nothing for {self.kind!r}; "
                    f"remove them or set kind: {kind}"
                )
        READOUTS.settings(self.kind, self.settings)
        if self.alpha_min >= self.alpha_max:
            raise ValueError(f"alpha_min {self.alpha_min} must be below alpha_max {self.alpha_max}")
        return self

    def _changed(self, name: str) -> bool:
        return getattr(self, name) != type(self).model_fields[name].default


class ModelConfig(BaseModel):
    """A looped transformer: unlooped prelude, one stack of `layers` applied `loops` times, unlooped coda."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    dim: int = Field(128, ge=1, le=2**20)
    """Channels of the hidden state."""
    layers: int = Field(2, ge=1, le=10_000)
    """Layers of the shared stack."""
    heads: int = Field(4, ge=1, le=2**20)
    """Attention heads; must divide dim, unless attention.head_dim says how wide they are."""
    loops: int = Field(4, ge=1, le=10_000)
    """K, the trained depth."""
    vocabulary: int = Field(4096, ge=2, le=2**24)
    """Entries of the embedding: at least the tokenizer's."""
    sequence: int = Field(128, ge=1, le=2**24)
    """Tokens of a training window, and the number of learned positions."""
    readout: ReadoutConfig = ReadoutConfig()
    """How H_k becomes what the head reads."""
    carry: tuple[str, ...] = ()
    """What is done to the state between loops, in order; nothing by default. rmsnorm, layernorm, readout-norm, damping,
    decay; package.module:ClassName for one of your own, or its short name."""
    feed_forward: int = Field(4, ge=1, le=1024)
    """Width of the SwiGLU, in multiples of dim."""
    positions: Literal["learned", "rotary"] = "learned"
    """learned: one vector for each of `sequence` positions, and none beyond. rotary: any length."""
    tied: bool = True
    """Whether the head's matrix is the token embedding's."""
    exit_gate: bool = False
    """A learned gate: one logit per token and loop, read from H_k."""
    initialisation: Literal["scaled", "scaled-stack", "published"] = "scaled"
    """scaled: N(0, 0.02), residual outputs divided by sqrt(2·layers·loops). scaled-stack: by sqrt(2·layers), as if the
    stack ran once. published: PyTorch's defaults."""
    damping: float = Field(0.88, gt=0, lt=1)
    """Start value of the damping carry, a sigmoid of a learned number."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the embedding, inside attention and after the SwiGLU, as published."""
    norm_eps: float = Field(1e-6, gt=0, le=1)
    """Added under the root of every norm."""
    prelude: int = Field(0, ge=0, le=10_000)
    """Layers of their own before the loops; what they give is the input that loops start from and inject."""
    coda: int = Field(0, ge=0, le=10_000)
    """Layers of their own between H_k and the readout, at every exit."""
    coda_norm: bool = False
    """Apply the readout's norm to H_k before the coda too (one norm, used twice): then the coda hides the scale."""
    coda_matrix: bool = False
    """A square matrix between H_k and the coda, the identity at first (the C of Parcae's linear system)."""
    start: str = "embedding"
    """H_0: embedding (the input itself), zero, random (noise: drawn anew in training, the same for every call in
    evaluation); package.module:ClassName for one of your own, or its short name."""
    injection: InjectionConfig = InjectionConfig()
    """How the input enters every loop."""
    loop_embedding: LoopEmbedding = "none"
    """Tells the shared layers which loop it is: added (learned, sinusoidal), or as gains and gates (modulation)."""
    looped: Literal["all", "attention"] = "all"
    """attention: later loops repeat attention only; each layer's feed-forward runs once, in loop 1."""
    block: BlockConfig = BlockConfig()
    """One layer: norms, branches, feed-forward."""
    attention: AttentionConfig = AttentionConfig()
    """What attention looks at."""
    adapters: AdapterConfig = AdapterConfig()
    """Low-rank changes of the shared weights, one per loop."""
    decay: float = Field(0.9, ge=0.01, le=0.99)
    """Start value of the decay carry, per channel. Bounded: near 0 or 1 it would have no gradient to leave by."""
    embedding_gain: Literal["one", "sqrt-dim"] = "one"
    """Factor on token embeddings as they enter the model (not in a tied head)."""
    gate_reads: Literal["hidden", "readout"] = "hidden"
    """What the exit gate reads: H_k itself, or the readout's features."""
    carry_settings: Mapping[str, VariantSettings] = {}
    """Of carries of your own, by name as in carry."""
    start_settings: VariantSettings = {}
    """Of a start state of your own: what it declares."""

    @field_validator("carry", mode="before")
    @classmethod
    def _carry_from_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            return () if value == "none" else (value,)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        STARTS.settings(self.start, self.start_settings)
        for name in self.carry:
            CARRIES.settings(name, self.carry_settings.get(name, {}))
        for name in self.carry_settings:
            if name not in self.carry:
                raise ValueError(
                    f"carry_settings names {name!r}, which is no step of carry {list(self.carry)}"
                )
        if self.dim % self.heads and self.attention.head_dim is None:
            near = [heads for heads in range(1, self.dim + 1) if self.dim % heads == 0]
            close = sorted(near, key=lambda heads: abs(heads - self.heads))[:3]
            raise ValueError(
                f"heads {self.heads} does not divide dim {self.dim}; heads that do, nearest first: {close} (or set "
                "attention.head_dim)"
            )
        if self.positions == "rotary" and self.head_dim % 2:
            own = self.attention.head_dim is not None
            raise ValueError(
                "rotary positions need an even number of channels per head; "
                + (
                    f"attention.head_dim is {self.head_dim}"
                    if own
                    else f"dim {self.dim} / heads {self.heads} is "
                )
                + ("" if own else str(self.head_dim))
            )
        if len(set(self.carry)) != len(self.carry):
            raise ValueError(f"carry {list(self.carry)} names a step twice; name each once")
        check_model(self)
        return self

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.attention.head_dim or self.dim // self.heads

    @property
    def key_value_heads(self) -> int:
        return self.attention.key_value_heads or self.heads

    @property
    def width(self) -> int:
        """Width of the feed-forward."""
        return self.block.width or self.feed_forward * self.dim

    @property
    def depth(self) -> int:
        """Layers of the trained model, unrolled: prelude, layers × loops, coda."""
        return self.prelude + self.layers * self.loops + self.coda

    @property
    def value_layers(self) -> tuple[bool, ...]:
        """For every layer, prelude to coda, whether it has value embeddings: every other one, the last included."""
        count = self.prelude + self.layers + self.coda
        on = self.attention.value_embeddings != "none"
        return tuple(on and (count - 1 - place) % 2 == 0 for place in range(count))

    def unchanged(self, name: str) -> bool:
        """Whether a setting has its default value."""
        return bool(getattr(self, name) == type(self).model_fields[name].default)
