"""Student's t, Holm, the bootstrap and the paired interval: closed forms, hand-worked cases, simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.evaluation.statistics.bootstrap import DRAWS, over_both, over_windows
from loopscope.evaluation.statistics.correction import holm
from loopscope.evaluation.statistics.paired import SMALLEST_P, Spread, paired_mean, spread
from loopscope.results import Interval
from loopscope.results.student_t import BOUNDS, LOG_SCALE, over_seeds, over_seeds_of, quantile, tail

# 97.5 % and 99.95 % quantiles, from any table of Student's t.
TABLE = {1: (12.706, 636.619), 2: (4.303, 31.599), 3: (3.182, 12.924), 7: (2.365, 5.408), 30: (2.042, 3.646)}


@pytest.mark.parametrize("degrees", TABLE)
def test_quantiles_are_those_of_the_tables(degrees: int) -> None:
    found = (quantile(0.05, degrees), quantile(0.001, degrees))
    assert found == pytest.approx(TABLE[degrees], abs=6e-4)


@pytest.mark.parametrize("degrees", [1, 2, 5, 8, 60])
@pytest.mark.parametrize("t", [0.3, 1.7, 6.0])
def test_the_tail_is_the_integral_of_the_density(degrees: int, t: float) -> None:
    grid = np.linspace(-t, t, 20_001)
    constant = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(
        degrees * math.pi
    )
    density = constant * (1 + grid**2 / degrees) ** (-(degrees + 1) / 2)
    assert tail(t, degrees) == pytest.approx(1 - float(np.trapezoid(density, grid)), abs=1e-8)


def test_the_normal_takes_over_smoothly() -> None:
    assert quantile(0.05, 199) == pytest.approx(quantile(0.05, 200), rel=7e-3)


def test_an_interval_over_seeds_by_hand() -> None:
    """1, 2, 3: mean 2, deviation 1, half-width 4.303 / sqrt(3)."""
    interval = over_seeds([1.0, 2.0, 3.0])
    assert (interval.mean, interval.low) == pytest.approx((2.0, 2 - 4.3027 / math.sqrt(3)), abs=1e-4)
    assert over_seeds([5.0]).low is None
    assert over_seeds([1.0, 2.0]) == Interval(1.5)
    assert over_seeds([1.0, math.nan]).low is None


def test_what_is_compared_in_factors_has_the_interval_of_its_logarithm() -> None:
    """1, e², e⁴: the logarithms 0, 2, 4 have mean 2, deviation 2, half-width 4.303 · 2 / sqrt(3)."""
    values = [1.0, math.exp(2), math.exp(4)]
    interval = over_seeds(values, log=True)
    half = 4.3027 * 2 / math.sqrt(3)
    assert interval.mean == pytest.approx(math.exp(2))
    assert (interval.low, interval.high) == pytest.approx((math.exp(2 - half), math.exp(2 + half)), rel=1e-3)
    assert over_seeds([8.0, 2.0], log=True) == Interval(pytest.approx(4.0))
    assert over_seeds([3.0], log=True) == Interval(3.0)
    assert over_seeds([0.0, 1.0, 2.0], log=True) == Interval(0.0)
    assert over_seeds([1.0, 2.0, math.inf], log=True) == Interval(math.inf)


@given(st.lists(st.floats(1e-300, 1e300), min_size=3, max_size=9))
def test_a_positive_quantity_never_has_an_interval_below_zero(values: list[float]) -> None:
    for quantity in ("perplexity", "l2_norm", "bits_per_byte", "accuracy", "mean_loops"):
        interval = over_seeds_of(quantity, values)
        assert interval.low is not None
        assert interval.low >= 0


def test_a_loss_and_its_perplexity_have_one_interval() -> None:
    losses = [4.0, 4.3, 4.1]
    of_loss, of_perplexity = (
        over_seeds_of("loss", losses),
        over_seeds_of("perplexity", list(map(math.exp, losses))),
    )
    assert (of_perplexity.mean, of_perplexity.low, of_perplexity.high) == pytest.approx(
        tuple(math.exp(end) for end in (of_loss.mean, of_loss.low or 0.0, of_loss.high or 0.0))
    )
    assert not LOG_SCALE & set(BOUNDS)


def test_holm_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 and never falling: the last is pulled up by the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=20))
def test_holm_corrects_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= value <= 1 for p, value in zip(p_values, corrected, strict=True))
    assert min(corrected) == pytest.approx(min(1, len(p_values) * min(p_values)))
    ranks = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [corrected[place] for place in ranks] == sorted(corrected)


def test_the_bootstrap_over_windows_has_the_closed_form_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    interval = over_windows(values)
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert interval.mean == pytest.approx(float(values.mean()))
    assert interval.low == pytest.approx(interval.mean - half, abs=0.08 * half)
    assert interval.high == pytest.approx(interval.mean + half, abs=0.08 * half)
    assert over_windows(np.array([1.0])).low is None


@given(st.permutations(range(12)))
def test_the_order_of_windows_changes_nothing(order: list[int]) -> None:
    generator = np.random.default_rng(1)
    values, weights = generator.normal(size=(3, 12)), generator.integers(1, 9, 12).astype(float)
    assert over_windows(values[0], weights) == over_windows(values[0][order], weights[order])
    one, other = paired_mean(values, weights), paired_mean(values[:, order], weights[order])
    assert one.p == pytest.approx(other.p)
    assert one.interval.low == pytest.approx(other.interval.low)


def test_weights_are_repeated_windows() -> None:
    values = np.random.default_rng(2).normal(size=(3, 4))
    means = paired_mean(values, np.array([1.0, 2.0, 1.0, 3.0])).interval.mean
    assert means == pytest.approx(float(np.repeat(values, [1, 2, 1, 3], axis=1).mean()))
    ignored = values.copy()
    ignored[:, 1] = math.nan  # a window without a label that counts
    assert paired_mean(ignored, np.array([1.0, 0, 1, 1])) == paired_mean(values[:, [0, 2, 3]], np.ones(3))


def test_the_bootstrap_over_both_has_its_closed_form() -> None:
    """Owen (2007): seeds and windows each give their variance, and single values once more."""
    values = np.random.default_rng(3).normal(size=(4, 30)) + np.arange(4)[:, None]
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    rest = values - rows[:, None] - columns + values.mean()
    expected = rows.var() / 4 + columns.var() / 30 + (rest**2).mean() / 120
    drawn = over_both(values)
    assert len(drawn) == DRAWS
    assert drawn.var() == pytest.approx(expected, rel=0.08)
    assert drawn.mean() == pytest.approx(values.mean(), abs=4 * math.sqrt(expected / DRAWS))


def test_with_all_windows_alike_it_is_the_t_test() -> None:
    """Seeds 1, 2, 3 over equal windows: t = 2 / (1 / sqrt 3) with 2 degrees, p = 0.0742 (by hand: 1 - t/sqrt(t²+2))."""
    found = paired_mean(np.repeat([[1.0], [2.0], [3.0]], 50, axis=1))
    t = 2 * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(t * t + 2), rel=1e-6)
    assert found.interval.low == pytest.approx(over_seeds([1.0, 2.0, 3.0]).low)


def test_with_all_seeds_alike_it_is_the_test_over_windows() -> None:
    values = np.random.default_rng(4).normal(0.2, 1, 500)
    found = paired_mean(np.stack([values] * 3))
    z = float(values.mean() / (values.std(ddof=1) / math.sqrt(500)))
    assert found.p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_the_interval_touches_zero_where_p_is_five_percent() -> None:
    values = np.random.default_rng(5).normal(size=(4, 60))
    values -= values.mean()
    width = paired_mean(values).interval.high
    assert paired_mean(values + width).p == pytest.approx(0.05, rel=1e-6)


def test_without_enough_seeds_there_is_no_interval() -> None:
    values = np.random.default_rng(6).normal(size=(2, 50))
    found = paired_mean(values)
    assert (found.interval.low, found.interval.high, found.p) == (None, None, None)
    assert found.interval.mean == pytest.approx(values.mean())
    assert paired_mean(np.full((3, 5), math.nan)).p is None


def test_no_spread_at_all() -> None:
    assert paired_mean(np.zeros((3, 5))).p == 1
    assert paired_mean(np.ones((3, 5))).p == SMALLEST_P


# (of seeds, of windows, noise): the parts' shares of the variance of the mean differ by orders of magnitude.
@pytest.mark.parametrize("parts", [(1, 0, 0.1), (1, 5, 1), (0.1, 5, 1), (0, 0, 1), (0.3, 3, 0)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_is_honest_with_few_seeds(parts: tuple[float, float, float], seeds: int) -> None:
    """At least 95 % of intervals hold the truth, and of null p-values at most 5 % are below 0.05, within chance."""
    generator = np.random.default_rng(seeds)
    of_seed, of_window, noise = parts
    repeats, windows, truth, held, false = 2000, 50, 0.7, 0, 0
    for _ in range(repeats):
        values = (
            of_seed * generator.standard_normal((seeds, 1))
            + of_window * generator.standard_normal(windows)
            + noise * generator.standard_normal((seeds, windows))
        )
        interval = paired_interval(values + truth)
        held += interval[0] <= truth <= interval[1]
        null = paired_interval(values)
        false += not null[0] <= 0 <= null[1]
    chance = 3 * math.sqrt(0.05 * 0.95 / repeats)
    assert held / repeats >= 0.95 - chance
    assert false / repeats <= 0.05 + chance


def paired_interval(values: np.ndarray) -> tuple[float, float]:
    """Without the p-value, which is that of the same interval and slower."""
    found = spread(values)
    assert isinstance(found, Spread)
    interval = found.interval()
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def test_percentiles_of_the_bootstrap_would_not_be_honest() -> None:
    """Why the interval is not simply the bootstrap's: with three seeds it holds the truth three times in four."""
    generator = np.random.default_rng(7)
    held = 0
    for number in range(150):
        values = generator.standard_normal((3, 1)) + 0.1 * generator.standard_normal((3, 20))
        low, high = np.quantile(over_both(values, seed=number), [0.025, 0.975])
        held += low <= 0 <= high
    assert held / 150 < 0.85
