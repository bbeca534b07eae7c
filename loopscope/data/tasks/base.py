"""What a task is here: symbols, and problems drawn from a random generator, with their answers as labels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

NO_ANSWER = -100
"""Label of a token after which nothing is asked (PyTorch's and transformers' convention for what is not counted)."""


@dataclass(frozen=True)
class Problems:
    """Some problems of a task: what is read, and after which tokens which symbol is the answer."""

    input_ids: Int[np.ndarray, "batch seq"]
    labels: Int[np.ndarray, "batch seq"]


class AbstractTask(ABC):
    """A task: draws problems over a few symbols, whose answers follow from what is read.

    Attributes:
        symbols: the vocabulary in the order of its ids; readable, and without white space.
        width: tokens of a problem.
        everywhere: answers after every token that has one, and not only after the last.
    """

    symbols: tuple[str, ...]
    width: int
    everywhere: bool

    @abstractmethod
    def draw(self, generator: np.random.Generator, count: int) -> Problems:
        """Draw up to `count` problems: candidates that miss the difficulty are left out."""

    def asked(self, answers: Int[np.ndarray, "batch seq"]) -> Int[np.ndarray, "batch seq"]:
        """Return labels from the answers after every token: all of them, or the last alone."""
        if self.everywhere:
            return answers
        labels = np.full_like(answers, NO_ANSWER)
        labels[:, -1] = answers[:, -1]
        return labels
