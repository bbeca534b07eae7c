"""Chains of modular addition: numbers one after the other, and their sum modulo m after the equals sign.

`3 1 4 =` modulo 5 is 3. Adding one by one takes as many steps as there are numbers; a parallel machine adds in pairs,
in log2 of them. Transformers can also find shortcuts that count (Liu et al., "Transformers Learn Shortcuts to
Automata", arXiv 2210.10749: groups such as this one allow them), so that depth helps here, and is not proven needed.
"""

import numpy as np

from loopscope.data.tasks.base import AbstractTask, Problems


class ModularAddition(AbstractTask):
    """Task of adding chains of numbers, all of one length. Chance is 1 in `modulus`.

    With answers everywhere: the running sum after every number.
    """

    def __init__(self, length: int, modulus: int, everywhere: bool) -> None:
        self.modulus = modulus
        self.symbols = (*map(str, range(modulus)), "=")
        self.width = length + 1
        self.everywhere = everywhere

    def draw(self, generator: np.random.Generator, count: int) -> Problems:
        numbers = generator.integers(0, self.modulus, size=(count, self.width - 1))
        sums = np.cumsum(numbers, axis=1) % self.modulus
        tokens = np.pad(numbers, ((0, 0), (0, 1)), constant_values=self.modulus)
        return Problems(tokens, self.asked(np.concatenate([sums, sums[:, -1:]], axis=1)))
