"""The settings of a looped transformer: small, frozen, and checked against each other before work starts."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ReadoutKind = Literal["rmsnorm", "layernorm", "raw", "final-only", "alpha"]
CarryKind = Literal["rmsnorm", "layernorm", "damping"]

_ALPHA_ONLY = ("alpha", "learned", "per_loop", "s_ref", "s_ref_value", "ema_decay", "alpha_min", "alpha_max")


class ReadoutConfig(BaseModel):
    """How H_k becomes what the head reads. All settings but `kind` belong to the alpha readout."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: ReadoutKind = "rmsnorm"
    alpha: float = Field(0.5, ge=0, le=1)
    """Exponent of the scale: 0 hides it, 1 is raw. The start value where it is learned."""
    learned: bool = False
    """Learn the exponent."""
    per_loop: bool = False
    """One exponent (and reference) per loop; loops past the trained depth use the last one."""
    s_ref: Literal["fixed", "learned", "ema"] = "fixed"
    """The reference scale: a constant, a learned number, or a moving average of the scale in training."""
    s_ref_value: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.99, gt=0, lt=1)
    alpha_min: float = Field(0.0, ge=0, le=1)
    alpha_max: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "ReadoutConfig":
        if self.kind != "alpha":
            given = [name for name in _ALPHA_ONLY if name in self.model_fields_set and self._changed(name)]
            if given:
                raise ValueError(
                    f"{', '.join(given)} belong to readout kind 'alpha' and do nothing for {self.kind!r}; "
                    "remove them or set kind: alpha"
                )
        if self.alpha_min >= self.alpha_max:
            raise ValueError(f"alpha_min {self.alpha_min} must be below alpha_max {self.alpha_max}")
        return self

    def _changed(self, name: str) -> bool:
        return getattr(self, name) != type(self).model_fields[name].default


class ModelConfig(BaseModel):
    """A looped pre-norm transformer: one stack of `layers`, applied `loops` times."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    dim: int = Field(128, ge=1)
    """Channels of the hidden state."""
    layers: int = Field(2, ge=1)
    """Layers of the shared stack."""
    heads: int = Field(4, ge=1)
    """Attention heads; must divide dim."""
    loops: int = Field(4, ge=1)
    """K, the trained depth."""
    vocabulary: int = Field(4096, ge=2)
    """Entries of the embedding: at least the tokenizer's."""
    sequence: int = Field(128, ge=1)
    """Tokens of a training window, and the number of learned positions."""
    readout: ReadoutConfig = ReadoutConfig()
    carry: tuple[CarryKind, ...] = ()
    """What is done to the state between loops, in order; nothing by default."""
    feed_forward: int = Field(4, ge=1)
    """Width of the SwiGLU, in multiples of dim."""
    positions: Literal["learned", "rotary"] = "learned"
    tied: bool = True
    """Whether the head's matrix is the token embedding's."""
    exit_gate: bool = False
    """A learned gate: one logit per token and loop, read from H_k."""
    initialisation: Literal["scaled", "published"] = "scaled"
    """scaled: N(0, 0.02), residual outputs divided by sqrt(2·layers·loops). published: PyTorch's defaults."""
    damping: float = Field(0.88, gt=0, lt=1)
    """Start value of the damping carry, a sigmoid of a learned number."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the embedding, inside attention and after the SwiGLU, as published."""
    norm_eps: float = Field(1e-6, gt=0)

    @field_validator("carry", mode="before")
    @classmethod
    def _carry_from_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            return () if value == "none" else (value,)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.dim % self.heads:
            near = [heads for heads in range(1, self.dim + 1) if self.dim % heads == 0]
            close = sorted(near, key=lambda heads: abs(heads - self.heads))[:3]
            raise ValueError(
                f"heads {self.heads} does not divide dim {self.dim}; heads that do, nearest first: {close}"
            )
        if self.positions == "rotary" and (self.dim // self.heads) % 2:
            raise ValueError(
                f"rotary positions need an even number of channels per head; dim {self.dim} / heads "
                f"{self.heads} is {self.dim // self.heads}"
            )
        if len(set(self.carry)) != len(self.carry):
            raise ValueError(f"carry {list(self.carry)} names a step twice; name each once")
        if "damping" in self.model_fields_set and "damping" not in self.carry and self.damping != 0.88:
            raise ValueError("damping is set but carry has no 'damping' step; add it or remove the value")
        return self
