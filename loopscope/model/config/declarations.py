"""What readouts, carries, injections and start states declare of themselves. Importable without torch.

Training does not need it. Costs, the static audit, checks of a config and the measured audit's notes ask it, and
know no variant by name. A field that is a number may also be a function of the model's config and the variant's own
settings (`lambda config, settings: 2 * config.dim`). Fields without a default must be given: nothing is guessed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from loopscope.results.declaration import UNDECLARED, AbstractDeclaration

if TYPE_CHECKING:
    from loopscope.model.config import ModelConfig

Effect = Literal["removes", "damps", "keeps"]
"""On a relative change of scale: removes leaves nothing of it, damps shrinks the state, keeps carries it on."""

Exponent = float | Literal["fades"]
"""p where scaling the state by c scales the output by c^p; `fades`: no power, shown only against a fixed size."""

Count = int | Callable[["ModelConfig", Any], int]
"""A whole number, or a function of config and settings."""

Needs = Callable[["ModelConfig", Any], str | None]
"""A config and settings to what is wrong with them, in a sentence, or None."""


@dataclass(frozen=True, kw_only=True)
class VariantDeclaration(AbstractDeclaration):
    """What every variant declares.

    Attributes:
        parameters: trainable numbers.
        flops: of its matrix products, per token and use (readout: exit; carry, injection: loop), 2 per multiply-add.
        needs: what it asks of the rest of the config.
        settings: a pydantic model of its own settings, or None where it has none.
        fields: settings of the config's own section that belong to it alone; for shipped variants.
    """

    parameters: Count = UNDECLARED
    flops: Count = UNDECLARED
    needs: Needs | None = None
    settings: type[BaseModel] | None = None
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReadoutDeclaration(VariantDeclaration):
    """A readout: H_k to the head's input.

    Attributes:
        scale_exponent: p where scaling H_k by c scales the features by c^p, at loops before the last. 0: the
            cross-entropy cannot see the scale. 1: raw. `fades`: not a power, seen only against a fixed size.
        last_scale_exponent: at the last loop of an unroll; None: as before.
        norm: it has a norm over channels as its attribute `norm`, which `coda_norm` and carries may share.
        adapts: it changes by itself in training, by no gradient (a running mean).
    """

    scale_exponent: Exponent | Callable[["ModelConfig", Any], Exponent] = UNDECLARED
    last_scale_exponent: Exponent | Callable[["ModelConfig", Any], Exponent] | None = None
    norm: bool = False
    adapts: bool | Callable[["ModelConfig", Any], bool] = False


@dataclass(frozen=True, kw_only=True)
class CarryDeclaration(VariantDeclaration):
    """A carry: H_k to the next loop's input.

    Attributes:
        effect: on scale.
        why: what it does, after its name: `divides by the state's own size`.
        readout_norm: it uses the readout's norm, and owns none.
    """

    effect: Effect | Callable[["ModelConfig", Any], Effect] = UNDECLARED
    why: str | None = None
    readout_norm: bool = False


@dataclass(frozen=True, kw_only=True)
class InjectionDeclaration(VariantDeclaration):
    """An injection: how the input enters every loop.

    Attributes:
        effect: on the scale of the state that it receives.
        why: what it does to the state, after its name, where it does not keep it.
        learned_map: the state goes through a matrix, of which a config cannot know what it leaves.
        input_flops: those of `flops` whose product reads the input alone, not the state.
    """

    effect: Effect | Callable[["ModelConfig", Any], Effect] = UNDECLARED
    why: str | None = None
    learned_map: bool = False
    input_flops: Count = 0


@dataclass(frozen=True, kw_only=True)
class StartDeclaration(VariantDeclaration):
    """A start state: H_0 of the input.

    Attributes:
        shows_input: H_0 is made of the input; where not, an injection has to bring it in.
    """

    shows_input: bool = field(default=UNDECLARED)
