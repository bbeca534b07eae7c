"""Reading a step ahead changes nothing but when it is read."""

import threading
import time

import pytest
import torch

from loopscope.training.prefetch import Prefetcher

CPU = torch.device("cpu")


class Recording:
    def __init__(self, slow: float = 0.0) -> None:
        self.read: list[tuple[int, str]] = []
        self.slow, self.ended = slow, 0

    def __len__(self) -> int:
        return 8

    def batch(
        self, seed: int, step: int, rank: int, batch_size: int, world: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.read.append((step, threading.current_thread().name))
        time.sleep(self.slow)
        self.ended += 1
        if step == 6:
            raise OSError("the disk is gone")
        row = torch.full((batch_size, 3), 100 * seed + step)
        return row, row + 1


def test_batches_are_those_of_their_steps_and_one_is_read_ahead() -> None:
    windows = Recording()
    with Prefetcher(windows, seed=7, batch=2, steps=5, device=CPU) as batches:
        for step in (2, 3, 4):  # a resumed run begins in the middle
            inputs, labels = batches.get(step)
            assert inputs.tolist() == [[700 + step] * 3] * 2
            assert torch.equal(labels, inputs + 1)
    assert [step for step, _ in windows.read] == [2, 3, 4]  # nothing beyond the last step
    assert [name.startswith("batches") for _, name in windows.read] == [False, True, True]


def test_an_unexpected_step_is_read_all_the_same() -> None:
    with Prefetcher(Recording(), seed=0, batch=1, steps=9, device=CPU) as batches:
        batches.get(0)
        assert batches.get(4)[0].tolist() == [[4, 4, 4]]


def test_what_reading_raises_is_raised_in_the_step() -> None:
    with Prefetcher(Recording(), seed=0, batch=1, steps=9, device=CPU) as batches:
        batches.get(5)
        with pytest.raises(OSError, match="the disk is gone"):
            batches.get(6)


def test_waiting_is_counted_and_hidden_behind_a_longer_step() -> None:
    windows = Recording(slow=0.1)
    with Prefetcher(windows, seed=0, batch=1, steps=9, device=CPU) as batches:
        batches.get(0)
        first = batches.waited
        assert first >= 0.1
        while windows.ended < 2:  # the step
            time.sleep(0.01)
        batches.get(1)
        assert batches.waited - first < 0.1
