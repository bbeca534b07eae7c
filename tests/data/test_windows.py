"""Windows: labels are the next tokens, and an epoch visits every window once, over all ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopscope.data.tokenfile import TokenFile, open_tokens, write_tokens
from loopscope.data.windows import Windows, permute


def counting(count: int) -> TokenFile:
    """A file whose token at place i is i, so that a window's first token names it."""
    return TokenFile(Path("counting.tokens"), np.arange(count, dtype=np.uint32), count, 2**32, "")


def firsts(windows: Windows, seed: int, step: int, batch_size: int, world: int = 1) -> list[int]:
    """Indices of the windows that all ranks see at one step."""
    batches = [windows.batch(seed, step, rank, batch_size, world) for rank in range(world)]
    return [int(first) // windows.stride for inputs, _ in batches for first in inputs[:, 0]]


@given(sequence=st.integers(1, 20), stride=st.none() | st.integers(1, 30), extra=st.integers(0, 200))
def test_labels_are_inputs_shifted_by_one(sequence: int, stride: int | None, extra: int) -> None:
    windows = Windows(counting(sequence + 1 + extra), sequence, stride)
    inputs, labels = windows.read(np.arange(len(windows)))
    step = sequence if stride is None else stride
    assert inputs.dtype == labels.dtype == torch.int64
    assert inputs.shape == (len(windows), sequence)
    assert torch.equal(inputs, torch.arange(sequence) + step * torch.arange(len(windows))[:, None])
    assert torch.equal(labels, inputs + 1)
    # The last window is inside, one more would not be.
    assert labels.max() <= sequence + extra
    assert len(windows) * step + sequence > sequence + extra


def test_without_a_stride_no_input_is_in_two_windows() -> None:
    inputs, labels = Windows(counting(41), 10).read(np.arange(4))
    assert inputs.flatten().tolist() == list(range(40))
    assert labels.flatten().tolist() == list(range(1, 41))


def test_windows_of_a_real_file_on_disk(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 2**16, 100)
    write_tokens(tmp_path / "a.tokens", [(ids, 100)], 2**16, "ab" * 32)
    inputs, labels = Windows(open_tokens(tmp_path / "a.tokens"), 9).batch(0, 0, 0, 11)
    found = sorted(zip(inputs.tolist(), labels.tolist(), strict=True))
    assert found == sorted((ids[i : i + 9].tolist(), ids[i + 1 : i + 10].tolist()) for i in range(0, 99, 9))


def test_a_batch_is_a_function_of_its_arguments() -> None:
    windows = Windows(counting(1001), 10)
    ahead = windows.batch(3, 70, 1, 4, world=2)
    for step in range(5):
        windows.batch(3, step, 0, 4, world=2)
    list(windows.sequential(7))
    for again in (windows.batch(3, 70, 1, 4, world=2), Windows(counting(1001), 10).batch(3, 70, 1, 4, 2)):
        assert torch.equal(again[0], ahead[0])
        assert torch.equal(again[1], ahead[1])


@settings(max_examples=50)
@given(
    count=st.integers(1, 200), batch_size=st.integers(1, 9), world=st.integers(1, 4), seed=st.integers(0, 9)
)
def test_an_epoch_visits_no_window_twice_over_all_ranks(
    count: int, batch_size: int, world: int, seed: int
) -> None:
    windows = Windows(counting(count + 1), 1)
    assert len(windows) == count
    steps = -(-3 * count // (batch_size * world))
    seen = [index for step in range(steps) for index in firsts(windows, seed, step, batch_size, world)]
    for epoch in range(3):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_a_divisible_epoch_visits_every_window_exactly_once() -> None:
    windows = Windows(counting(2401), 10)
    for epoch in range(2):
        steps = range(epoch * 10, epoch * 10 + 10)
        seen = [index for step in steps for index in firsts(windows, 5, step, 8, world=3)]
        assert sorted(seen) == list(range(240))


def test_the_world_only_splits_what_one_rank_would_see() -> None:
    windows = Windows(counting(1001), 1)
    for step in (0, 17, 130):
        assert firsts(windows, 1, step, 8, world=4) == firsts(windows, 1, step, 32)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    places = np.arange(500)
    orders = [tuple(permute(places, 500, seed, epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16
    # Two random orders of 500 agree at one place on average.
    first = np.array(orders)
    for i in range(16):
        agree = [(first[i] == first[j]).sum() for j in range(i)]
        assert max(agree, default=0) < 12
        assert (first[i] == places).sum() < 12


def test_every_window_comes_first_about_equally_often() -> None:
    for count in (3, 10, 100):
        draws = 100 * count
        chosen = [int(permute(np.array([0]), count, seed, 0)[0]) for seed in range(draws)]
        found = np.bincount(chosen, minlength=count)
        # Chi-square with count - 1 degrees of freedom: its mean, and five standard deviations more.
        chi = ((found - 100) ** 2 / 100).sum()
        assert chi < count - 1 + 5 * np.sqrt(2 * (count - 1)) + 5


@given(count=st.integers(1, 5000), seed=st.integers(0, 2**63), epoch=st.integers(0, 2**40))
def test_permute_is_a_bijection(count: int, seed: int, epoch: int) -> None:
    found = permute(np.arange(count), count, seed, epoch)
    assert found.dtype == np.int64
    assert np.array_equal(np.sort(found), np.arange(count))


def test_permute_asks_for_no_memory_at_a_trillion() -> None:
    count = 10**12
    places = np.concatenate([np.arange(1000), np.arange(count - 1000, count), [count // 2]])
    found = permute(places, count, 1, 2)
    assert len(set(found.tolist())) == len(places)
    assert found.min() >= 0
    assert found.max() < count
    assert 0.45 < (found / count).mean() < 0.55
    assert np.array_equal(permute(places[::-1], count, 1, 2), found[::-1])


def test_fewer_windows_than_a_batch() -> None:
    windows = Windows(counting(31), 10)
    inputs, labels = windows.batch(0, 0, 0, 7)
    assert inputs.shape == (7, 10)
    assert torch.equal(labels, inputs + 1)
    indices = firsts(windows, 0, 0, 7)
    assert sorted(indices[:3]) == sorted(indices[3:6]) == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 1, 9, 10])
def test_a_corpus_shorter_than_a_window_is_refused_with_both_lengths(count: int) -> None:
    with pytest.raises(
        ValueError, match=rf"counting\.tokens has {count} tokens, shorter than one window of 10"
    ):
        Windows(counting(count), 10)


def test_one_window_and_its_label_are_enough() -> None:
    windows = Windows(counting(11), 10)
    assert len(windows) == 1
    assert windows.batch(0, 12, 0, 1)[1].tolist() == [list(range(1, 11))]


@pytest.mark.parametrize(("rank", "world"), [(1, 1), (-1, 2), (4, 4), (0, 0)])
def test_a_rank_outside_the_world_is_refused(rank: int, world: int) -> None:
    with pytest.raises(ValueError, match=f"rank is {rank}; it must be from 0 to world - 1 = {world - 1}"):
        Windows(counting(100), 10).batch(0, 0, rank, 2, world)


def test_sequential_goes_through_the_file_in_order() -> None:
    batches = list(Windows(counting(101), 10).sequential(4))
    assert [len(inputs) for inputs, _ in batches] == [4, 4, 2]
    assert torch.cat([inputs for inputs, _ in batches]).flatten().tolist() == list(range(100))
    assert torch.cat([labels for _, labels in batches]).flatten().tolist() == list(range(1, 101))


@given(count=st.integers(1, 300), limit=st.integers(1, 400), batch_size=st.integers(1, 50))
def test_a_limit_is_spread_evenly_over_the_file(count: int, limit: int, batch_size: int) -> None:
    batches = list(Windows(counting(count + 1), 1).sequential(batch_size, limit))
    chosen = [int(first) for inputs, _ in batches for first in inputs[:, 0]]
    assert len(chosen) == min(limit, count)
    assert chosen[0] == 0
    gaps = np.diff([*chosen, count])  # the last stretch counts too
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1
    assert {len(inputs) for inputs, _ in batches[:-1]} <= {batch_size}
