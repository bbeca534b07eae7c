"""The settings of a generated task. Importable without torch, numpy or tokenizers."""

import difflib
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "p-hop": ("hops", "symbols"),
    "modular-addition": ("length", "modulus"),
    "brackets": ("nesting", "kinds"),
}
"""The tasks, and the settings that are each one's own: its difficulty first."""


class TaskConfig(BaseModel):
    """Settings of a task: generated problems with answers that can be checked. Used where `corpus` is `task`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    name: str = "p-hop"
    """p-hop (induction), modular-addition (chains), or brackets (matching)."""
    hops: int = Field(2, ge=1, le=10_000)
    """p-hop: how many times to look back."""
    symbols: int = Field(4, ge=3, le=26)
    """p-hop: different symbols in the sequence."""
    length: int = Field(8, ge=2, le=10_000)
    """modular-addition: numbers to add."""
    modulus: int = Field(5, ge=2, le=1000)
    """modular-addition: sums are taken modulo this."""
    nesting: int = Field(3, ge=3, le=1000)
    """brackets: how deep they are nested, exactly; from 3 on every length of window has such problems."""
    kinds: int = Field(3, ge=2, le=4)
    """brackets: different pairs."""
    answers: Literal["last", "all"] = "last"
    """last: one answer, after the last token. all: trained at every token on the problem that ends there.
    Held-out problems always ask for the last one."""
    validation: int = Field(512, ge=1, le=10**7)
    """Held-out problems. No training problem is one of them."""

    @model_validator(mode="after")
    def _consistent(self) -> "TaskConfig":
        if self.name not in SETTINGS:
            near = difflib.get_close_matches(self.name, SETTINGS, n=1)
            hint = f"did you mean {near[0]!r}? There" if near else "there"
            raise ValueError(f"task {self.name!r} is not known; {hint} are: {', '.join(SETTINGS)}")
        for task, names in SETTINGS.items():
            if task != self.name and (strange := [name for name in names if self._changed(name)]):
                raise ValueError(
                    f"{', '.join(strange)} belongs to task {task!r} and does nothing for {self.name!r}, which has "
                    f"{' and '.join(SETTINGS[self.name])}; remove it, or set name: {task}"
                )
        return self

    @property
    def entries(self) -> int:
        """Number of ids that the task uses."""
        return {
            "p-hop": self.symbols,
            "modular-addition": self.modulus + 1,
            "brackets": 2 * self.kinds,
        }[self.name]

    @property
    def fewest_tokens(self) -> int:
        """The shortest window in which problems of this difficulty are common enough to be drawn."""
        return {
            "p-hop": (self.hops + 1) * self.symbols,
            "modular-addition": self.length + 1,
            "brackets": self.nesting**2 + 2,
        }[self.name]

    def width(self, sequence: int) -> int:
        """Return the tokens of a window where the model has `sequence`: all of them, or what a chain has.

        Raises:
            ValueError: the sequence is too short for the difficulty.
        """
        if sequence < self.fewest_tokens:
            first = SETTINGS[self.name][0]
            raise ValueError(
                f"model.sequence is {sequence}, too short for task {self.name!r} with {first} "
                f"{getattr(self, first)}; it needs {self.fewest_tokens} tokens: raise model.sequence, or lower "
                f"data.task.{first}"
            )
        return self.fewest_tokens if self.name == "modular-addition" else sequence

    @property
    def title(self) -> str:
        """What reports call it: `p-hop (hops 2, symbols 4)`."""
        return f"{self.name} ({', '.join(f'{name} {getattr(self, name)}' for name in SETTINGS[self.name])})"

    def _changed(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)
