"""The parts of a model's config: attention, block, injection, adapters. Importable without torch.

Every default is the plain pre-norm transformer of the published models, so that a config that names none of
these sections builds what it always built.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from loopscope.model.config.variants import INJECTIONS

NormPlacement = Literal["pre", "sandwich", "sandwich-sum", "post"]
Scaling = Literal["none", "1/N", "1/sqrt(N)", "1/(N*sqrt(L))", "deepnorm", "deeploop"]
Activation = Literal["swiglu", "gelu", "gelu-tanh", "gelu-new", "relu2"]
RotaryFormula = Literal["power", "inverse"]

VariantSettings = dict[str, Any]
"""Settings that a variant of a user's own declares, by name."""

_FROZEN = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class AttentionConfig(BaseModel):
    """What attention looks at, and how positions turn its queries and keys."""

    model_config = _FROZEN

    key_value_heads: int | None = Field(None, ge=1, le=2**20)
    """Heads of keys and values, shared by groups of query heads; None: as many as heads."""
    head_dim: int | None = Field(None, ge=1, le=2**20)
    """Channels of every head; None: dim / heads. Another number, and attention is wider or narrower than the state."""
    bias: bool = False
    """A learned bias on queries, keys, values and what leaves attention."""
    qk_norm: bool = False
    """RMSNorm over the channels of every query and key head, before positions are applied."""
    window: int | None = Field(None, ge=1, le=2**24)
    """Tokens a token sees, itself included; None: all before it."""
    rotary_base: float = Field(10_000.0, gt=1, le=1e30)
    """Rotary: the longest wavelength is about 2π times this."""
    rotary_scaling: float = Field(1.0, gt=0, le=1e30)
    """Rotary: positions are divided by this (linear interpolation, to run beyond the trained length)."""
    rotary_bands: tuple[float, float, int] | None = None
    """Rotary: scale only what turns slowly, as Llama 3.1 does. (low, high, length): channels that turn more than `high`
    times over a text of `length` tokens keep their speed, those that turn less than `low` times are divided by
    rotary_scaling, and between the two both are mixed. None: all are scaled alike."""
    rotary_formula: RotaryFormula = "power"
    """Rotary: how a channel's speed is computed; the two differ in the last bit. power: base^(-i/n). inverse:
    1 / base^(i/n), as transformers does, whose models this reproduces bit for bit."""
    rotary_fraction: float = Field(1.0, gt=0, le=1)
    """Rotary: share of each head's channels that turn; the rest carries no position."""
    qk_bias: bool = False
    """A learned bias on queries and keys, zero at first: one number per channel of every head."""
    value_embeddings: Literal["none", "added", "gated"] = "none"
    """A second embedding of the token, added to the values of every other layer, the last one included; gated: times
    2σ of a gate per token and head. Layers count from the prelude to the coda; the loops share a layer's."""


class BlockConfig(BaseModel):
    """One layer: where its norms are, how its branches are added, what its feed-forward is."""

    model_config = _FROZEN

    placement: NormPlacement = "pre"
    """pre: h + f(norm h). sandwich: h + norm f(norm h). sandwich-sum: norm(h + f(norm h)). post: norm(αh + f(h))."""
    scaling: Scaling = "none"
    """1/N, 1/sqrt(N), 1/(N*sqrt(L)): gain of the shared layers' branches (N loops, L layers). The others: α, β."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Kind of every norm inside layers."""
    activation: Activation = "swiglu"
    """swiglu: three matrices. The others two: gelu, gelu-tanh (its approximation), gelu-new (the same, rounded as GPT-2
    in transformers does it, and slower), relu2 (squared ReLU)."""
    bias: bool = False
    """A learned bias on every matrix of the feed-forward."""
    width: int | None = Field(None, ge=1, le=2**24)
    """Exact width of the feed-forward; None: feed_forward × dim."""

    @model_validator(mode="after")
    def _consistent(self) -> "BlockConfig":
        if self.scaling in ("deepnorm", "deeploop") and self.placement != "post":
            raise ValueError(
                f"scaling {self.scaling!r} multiplies the residual by α inside a norm that follows it, so it "
                f"needs placement 'post', not {self.placement!r}: without that norm α would multiply the "
                "state in every layer. Set placement: post, or scaling: none"
            )
        return self

    @property
    def ends_in_norm(self) -> bool:
        """Whether a layer's output is the output of a norm: then no scale leaves it."""
        return self.placement in ("sandwich-sum", "post")


class InjectionConfig(BaseModel):
    """How the input (the prelude's output) enters every loop, the first included."""

    model_config = _FROZEN

    kind: str = "none"
    """add: h + e. gated: h + σ(W[h;e])·e. concat: W[h;e]. write: h + dt·Be, with the step dt of the decay carry. Or
    package.module:ClassName of your own, or its short name."""
    norm: bool = False
    """RMSNorm on what is injected, once, so that its size cannot grow."""
    settings: VariantSettings = {}
    """Of an injection of your own: what it declares."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "InjectionConfig":
        if self.kind != "none":
            INJECTIONS.settings(self.kind, self.settings)
        if self.norm and self.kind == "none":
            raise ValueError("injection.norm is on, but kind is 'none': nothing is injected; set a kind")
        return self


class AdapterConfig(BaseModel):
    """Low-rank changes of the shared weights, one per loop; loops past the trained depth use the last."""

    model_config = _FROZEN

    rank: int = Field(0, ge=0, le=2**20)
    """0: none. Each matrix of the shared layers gets rank × (inputs + outputs) numbers per loop."""
    alpha: float = Field(1.0, gt=0, le=1e30)
    """The change is multiplied by alpha / rank."""

    @model_validator(mode="before")
    @classmethod
    def _from_rank(cls, value: Any) -> Any:
        return {"rank": value} if isinstance(value, int) else value
