"""Windows over a token file, and batches of them as a pure function of (seed, step, rank).

Every epoch visits the windows in another order: a keyed permutation that is computed, not stored, so a
corpus of a billion windows costs no memory and any step can be asked for directly.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int, Integer
from torch import Tensor

from loopscope.data.tokenfile import TokenFile

Batch = tuple[Int[Tensor, "batch seq"], Int[Tensor, "batch seq"]]
_ROUNDS = 4


class Windows:
    """Windows of a token file: `sequence` input tokens each, with the token that follows as label.

    Args:
        token_file: what to read.
        sequence: tokens of a window.
        stride: tokens between the starts of two windows; None: `sequence`, so that none overlap.

    Raises:
        ValueError: the file is shorter than one window.
    """

    def __init__(self, token_file: TokenFile, sequence: int, stride: int | None = None) -> None:
        self.token_file = token_file
        self.sequence = sequence
        self.stride = sequence if stride is None else stride
        if token_file.count < sequence + 1:
            raise ValueError(
                f"{token_file.path} has {token_file.count} tokens, shorter than one window of {sequence} and the "
                "token after it; use more text or a smaller model.sequence"
            )
        self.count = (token_file.count - sequence - 1) // self.stride + 1

    def __len__(self) -> int:
        return self.count

    def read(self, indices: Integer[np.ndarray, " batch"]) -> Batch:
        """Return inputs and labels of the windows with these indices, each [windows sequence]."""
        starts = np.asarray(indices, dtype=np.int64) * self.stride
        positions = starts[:, None] + np.arange(self.sequence + 1)
        tokens = torch.from_numpy(self.token_file.tokens[positions].astype(np.int64))
        return tokens[:, :-1], tokens[:, 1:]

    def batch(self, seed: int, step: int, rank: int, batch_size: int, world: int = 1) -> Batch:
        """Return the batch of one rank at one step (0-based): no window twice in an epoch, over all ranks.

        Args:
            batch_size: windows per rank.
            world: how many ranks there are.
        """
        check_rank(rank, world)
        draws = (step * world + rank) * batch_size + np.arange(batch_size, dtype=np.int64)
        epochs, within = draws // self.count, draws % self.count
        indices = np.empty(batch_size, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = permute(within[here], self.count, seed, int(epoch))
        return self.read(indices)

    def sequential(self, batch_size: int, limit_windows: int | None = None) -> Iterator[Batch]:
        """Yield windows in order, for evaluation; with a limit, that many spread evenly over the file."""
        count = self.count if limit_windows is None else min(limit_windows, self.count)
        chosen = np.arange(count, dtype=np.int64) * self.count // count
        for start in range(0, count, batch_size):
            yield self.read(chosen[start : start + batch_size])


def check_rank(rank: int, world: int) -> None:
    """Raise ValueError unless `rank` is one of 0..`world` - 1."""
    if not 0 <= rank < world:
        raise ValueError(f"rank is {rank}; it must be from 0 to world - 1 = {world - 1}")


def permute(
    positions: Integer[np.ndarray, " n"], count: int, seed: int, epoch: int
) -> Integer[np.ndarray, " n"]:
    """Return where a keyed permutation of 0..count-1 takes `places`.

    A Feistel network on the next even number of bits (a bijection whatever its round function is);
    results that fall outside are walked on through the network until they fall inside
    (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64)
    values = _feistel(np.asarray(positions, dtype=np.uint64), half, keys)
    while (outside := values >= count).any():
        values[outside] = _feistel(values[outside], half, keys)
    return values.astype(np.int64)


def _feistel(
    values: Integer[np.ndarray, " n"], half: int, keys: Integer[np.ndarray, " rounds"]
) -> Integer[np.ndarray, " n"]:
    bits, low = np.uint64(half), np.uint64(2**half - 1)
    left, right = values >> bits, values & low
    for key in keys:
        mixed = (right ^ key) * np.uint64(0x9E3779B97F4A7C15)  # wraps modulo 2^64, as meant
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        left, right = right, left ^ ((mixed >> np.uint64(32)) & low)
    return (left << bits) | right
