"""Draws against the distributions that they are from, and seeds that mean what they say."""

import math
import warnings

import pytest
import torch

from loopscope.generation.sampling import Sampler, Sampling
from tests.generation.fixtures import lively, ragged, run

LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -3.0]])


def _shares(sampling: Sampling, draws: int = 4000) -> torch.Tensor:
    sampler = Sampler(sampling, 1)
    tokens = torch.cat([sampler.draw(LOGITS) for _ in range(draws)])
    return torch.bincount(tokens, minlength=6) / draws


def test_shares_of_draws_are_the_tempered_probabilities() -> None:
    for temperature in (0.5, 1.0, 3.0):
        expected = (LOGITS[0] / temperature).softmax(0)
        assert torch.allclose(_shares(Sampling(temperature=temperature)), expected, atol=0.03)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(top_k=2), [0, 1]),
        (Sampling(top_k=99), [0, 1, 2, 3, 4, 5]),
        (Sampling(top_p=0.56), [0]),  # the first alone has 0.57
        (Sampling(top_p=0.75), [0, 1]),
        (Sampling(min_p=0.3), [0, 1]),  # exp(-1) = 0.37 of the first, exp(-1.5) = 0.22
        (Sampling(temperature=1.0, top_k=4, min_p=0.3), [0, 1]),
    ],
)
@pytest.mark.smoke
def test_filters_keep_what_they_say_in_proportion(sampling: Sampling, kept: list[int]) -> None:
    expected = torch.full((6,), -torch.inf)
    expected[kept] = LOGITS[0, kept]
    shares = _shares(sampling)
    assert torch.allclose(shares, expected.softmax(0), atol=0.03)
    assert shares[[token for token in range(6) if token not in kept]].sum() == 0


def test_without_settings_the_likeliest_is_taken() -> None:
    logits = torch.randn(5, 40)
    assert torch.equal(Sampler(Sampling(), 5).draw(logits), logits.argmax(1))
    assert torch.equal(Sampler(Sampling(top_k=1), 5).draw(logits), logits.argmax(1))


def test_the_same_seed_gives_the_same_text_and_another_one_another() -> None:
    model = lively()
    made = [run(model, 8, sampling=Sampling(temperature=2.0, seed=seed)).tokens for seed in (3, 3, 4)]
    assert made[0] == made[1] != made[2]


def test_a_row_draws_what_it_would_alone() -> None:
    model = lively()
    ids, mask = ragged()
    together = run(model, 8, sampling=Sampling(temperature=1.5, top_p=0.95, seed=10))
    for row in range(3):
        own = Sampling(temperature=1.5, top_p=0.95, seed=10 + row)
        alone = run(model, 8, prompts=(ids[row : row + 1, mask[row] == 1], None), sampling=own)
        assert alone.tokens[0] == together.tokens[row]


def test_drawing_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Sampler(Sampling(temperature=1.0), 2).draw(torch.randn(2, 9, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="logits are not finite"):
        Sampler(Sampling(), 1).draw(torch.tensor([[0.0, bad]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "temperature is 0; it must be a number above 0. Leave it out"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0; it must be a whole number from 1 up"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"min_p": -0.1}, "min_p is -0.1; it must be from 0 to 1"),
        ({"temperature": 1.0, "seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    from loopscope.generation.settings import check_settings
    from loopscope.jobs.generate import build_settings

    model = lively()
    with pytest.raises(ValueError, match=message):
        check_settings(build_settings(model, 3, **settings), model, [5])


def test_a_seed_without_draws_is_warned_about() -> None:
    with pytest.warns(UserWarning, match="seed 3 has no effect"):
        Sampling(seed=3).check()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Sampling(seed=3, top_k=5).check()


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e6])
@pytest.mark.parametrize("largest", [1.0, 1e30, 3e38])
def test_no_temperature_draws_what_is_not_in_the_vocabulary(temperature: float, largest: float) -> None:
    logits = torch.tensor([[-largest, 0.0, largest, largest / 2]])
    sampler = Sampler(Sampling(temperature=temperature), 1)
    drawn = {int(sampler.draw(logits)) for _ in range(20)}
    assert drawn <= {0, 1, 2, 3}
    if temperature < 1 or largest > 1e20:
        assert drawn == {2}


@pytest.mark.parametrize("temperature", [1e-37, 1e-300, 1e7, math.inf])
def test_temperatures_beyond_what_can_be_divided_by_are_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature is .* it must be a number above 0"):
        Sampling(temperature=temperature).check()
