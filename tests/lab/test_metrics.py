"""Metrics against values by hand, slow references, and properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm, t

from altlib.lab import metrics

LABELS = [0, 0, 1, 1, 1]
SCORES = [0.1, 0.4, 0.4, 0.35, 0.8]
Sample = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def sample(rows: int, seed: int = 0, levels: int | None = None) -> Sample:
    """Labels and two models' probabilities, the first better; few `levels` make many ties."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=rows)
    logits = (
        labels + generator.normal(size=(2, rows)) * [[1.0], [1.4]] + generator.normal(size=rows)
    )
    probabilities = 1 / (1 + np.exp(-logits))
    if levels:
        probabilities = np.round(probabilities * levels) / levels
    return labels, probabilities[0], probabilities[1]


def slow_auc(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    return float(kernel(labels, scores).mean())


def kernel(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whether positive i beats negative j: 1, 1/2 for a tie, 0."""
    positive, negative = scores[labels == 1][:, None], scores[labels == 0][None, :]
    return (positive > negative) + (positive == negative) / 2


def test_auc_by_hand_with_a_tie() -> None:
    # Pairs won: 0.4 beats 0.1 and ties 0.4; 0.35 beats 0.1; 0.8 beats both. 4.5 of 6.
    assert metrics.auc(LABELS, SCORES) == pytest.approx(4.5 / 6)


def test_logloss_by_hand() -> None:
    expected = -(math.log(0.75) + math.log(0.5)) / 2
    assert metrics.logloss([0, 1], [0.25, 0.5]) == pytest.approx(expected)


def test_rela_impr_by_hand() -> None:
    assert metrics.rela_impr(0.8, 0.75) == pytest.approx(0.2)
    assert math.isnan(metrics.rela_impr(0.8, 0.5))


@pytest.mark.parametrize("levels", [None, 5])
def test_the_bootstrap_agrees_with_delong(levels: int | None) -> None:
    """Whose variance is that of the structural components, here term by term."""
    labels, first, second = sample(1000, levels=levels)
    a, b = kernel(labels, first), kernel(labels, second)
    by_positive = np.var(a.mean(1) - b.mean(1), ddof=1) / a.shape[0]
    by_negative = np.var(a.mean(0) - b.mean(0), ddof=1) / a.shape[1]
    width = 2 * norm.ppf(0.975) * math.sqrt(by_positive + by_negative)
    found = metrics.paired_difference(labels, first, second)
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.high - found.low == pytest.approx(width, rel=0.15)
    assert (found.low + found.high) / 2 == pytest.approx(found.difference)


@pytest.mark.parametrize("metric", ["auc", "logloss"])
def test_bootstrap_equals_resampling_rows(metric: str) -> None:
    """Counts of rows give what scoring the drawn rows themselves gives."""
    labels, first, second = sample(60, levels=4)
    first, second = first.clip(0.05, 0.95), second.clip(0.05, 0.95)
    generator = np.random.default_rng(3)
    score = getattr(metrics, metric)
    drawn = []
    for _ in range(50):
        rows = generator.integers(60, size=60)
        drawn.append(score(labels[rows], first[rows]) - score(labels[rows], second[rows]))
    found = metrics.paired_difference(labels, first, second, metric, resamples=50, seed=3)
    margin = t.ppf(0.975, 59) * np.std(drawn, ddof=1)
    assert found.difference == pytest.approx(score(labels, first) - score(labels, second))
    expected = (found.difference - margin, found.difference + margin)
    assert (found.low, found.high) == pytest.approx(expected)


def test_bootstrap_redraws_a_resample_of_one_class() -> None:
    found = metrics.paired_difference([0, 1, 1], [0.1, 0.9, 0.8], [0.2, 0.1, 0.9], resamples=200)
    assert np.isfinite([found.low, found.high]).all()


def test_bootstrap_logloss_of_certain_predictions_is_that_of_logloss() -> None:
    labels, first, second = [0, 1, 1], [0.0, 1.0, 0.0], [0.1, 0.8, 0.6]
    found = metrics.paired_difference(labels, first, second, "logloss", resamples=10)
    expected = metrics.logloss(labels, first) - metrics.logloss(labels, second)
    assert found.difference == pytest.approx(expected)


def test_identical_predictors_do_not_differ() -> None:
    labels, first, _ = sample(100)
    found = metrics.paired_difference(labels, first, first)
    assert found == metrics.Comparison(0.0, 0.0, 0.0, 1.0)


def test_perfect_against_reversed_is_certain() -> None:
    found = metrics.paired_difference([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1])
    assert found == metrics.Comparison(1.0, 1.0, 1.0, 0.0)


def test_swapping_the_models_swaps_the_sign() -> None:
    labels, first, second = sample(200)
    one = metrics.paired_difference(labels, first, second)
    other = metrics.paired_difference(labels, second, first)
    swapped = (-other.difference, -other.high, -other.low, other.p_value)
    assert (one.difference, one.low, one.high, one.p_value) == pytest.approx(swapped)


rows_with_both_classes = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-20, 20), st.integers(-20, 20)), min_size=4
).filter(lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2)


@given(rows_with_both_classes)
def test_auc_properties(rows: list[tuple[int, int, int]]) -> None:
    labels, scores, _ = np.array(rows).T
    found = metrics.auc(labels, scores)
    assert found == pytest.approx(slow_auc(labels, scores))
    assert metrics.auc(labels, scores**3 + scores) == found
    assert metrics.auc(labels, -scores) == pytest.approx(1 - found)
    assert metrics.auc(1 - labels, scores) == pytest.approx(1 - found)


@given(rows_with_both_classes)
def test_properties_of_a_difference(rows: list[tuple[int, int, int]]) -> None:
    labels, first, second = np.array(rows).T
    found = metrics.paired_difference(labels, first, second, resamples=20)
    expected = metrics.auc(labels, first) - metrics.auc(labels, second)
    assert found.difference == pytest.approx(expected, abs=1e-12)
    assert found.low <= found.difference <= found.high
    assert 0 <= found.p_value <= 1
    assert metrics.paired_difference(labels, first, 2 * first, resamples=20).p_value == 1


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"one length; got \[\(2,\), \(1,\)\]"):
        metrics.auc([0, 1], [0.5])
    with pytest.raises(ValueError, match=r"1 of the predictions are not finite.* row 1"):
        metrics.logloss([0, 1], [0.5, math.nan])
    with pytest.raises(ValueError, match="only"):
        metrics.auc([1, 1], [0.5, 0.6])
    with pytest.raises(ValueError, match="0 or 1"):
        metrics.auc([1, 2], [0.5, 0.6])
    with pytest.raises(ValueError, match=r"row 1 holds 1\.5.*logits"):
        metrics.logloss([0, 1], [0.5, 1.5])
    with pytest.raises(ValueError, match="did you mean 'logloss'"):
        metrics.paired_difference([0, 1], [0.1, 0.2], [0.1, 0.2], metric="log_loss")
    with pytest.raises(ValueError, match="at least two resamples"):
        metrics.paired_difference([0, 1], [0.1, 0.2], [0.1, 0.2], resamples=1)
    with pytest.raises(ValueError, match="in pairs; got 2 and 1 of them"):
        metrics.paired_difference([0, 1], [[0.1, 0.2], [0.1, 0.3]], [0.1, 0.2])


def test_the_metrics_of_seeds_are_averaged() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    first = labels + generator.normal(0, 1.0, (3, 300))
    second = labels + generator.normal(0, 1.5, (3, 300))
    found = metrics.paired_difference(labels, first, second, resamples=200)
    means = [np.mean([metrics.auc(labels, seed) for seed in seeds]) for seeds in (first, second)]
    assert found.difference == pytest.approx(means[0] - means[1])
    assert found.low < found.difference < found.high
    same = metrics.paired_difference(labels, first[:1], second[0], resamples=50)
    assert same == metrics.paired_difference(labels, first[0], second[0], resamples=50)


def test_an_interval_knows_rows_and_seeds() -> None:
    """Seeds of the first model differ in nothing but a shift of its mean."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    second = np.tile(labels + rng.normal(0, 1.0, 4000), (5, 1))
    first = np.stack(
        [labels * (1 + shift) + rng.normal(0, 1, 4000) for shift in (0, 0.5, 1, 1.5, 2)]
    )
    aucs = [metrics.auc(labels, seed) for seed in first]
    found = metrics.paired_difference(labels, first, second, resamples=400)
    width = 2 * t.ppf(0.975, 4) * np.std(aucs, ddof=1) / np.sqrt(5)  # of the seeds alone
    assert found.high - found.low == pytest.approx(width, rel=0.05)
    alike = metrics.paired_difference(labels, first[:1].repeat(5, 0), second, resamples=400)
    assert alike.high - alike.low < 0.3 * width
    # Seeds are paired: where the second model shares what the first's differ in, it goes out.
    paired = metrics.paired_difference(labels, first, first[:, ::-1][:, ::-1], resamples=50)
    assert (paired.low, paired.high) == (0, 0)


@pytest.mark.parametrize("starts", [None, [0, 1, 2, 0, 1]])
def test_few_seeds_that_differ_rarely_mislead(starts: list[int] | None) -> None:
    """Two models alike, but that the seeds of one are better or worse by chance, or those of a
    pretraining are: about one interval of twenty leaves out the truth, which is 0."""
    rng = np.random.default_rng(0)
    labels, missed = np.repeat([0, 1], 30), 0
    place = np.arange(3) if starts is None else np.array(starts)

    def auc(shifts: np.ndarray) -> float:
        """Mean AUC of rows whose positives are better by 1 and a shift."""
        return float(np.mean((1 + shifts[:, None] + rows[30:])[:, :, None] > rows[:30]))

    for _ in range(100):
        rows = rng.normal(size=60)
        luck = rng.normal(0, 0.6, 3)[place]
        first = labels * (1 + luck[:, None]) + rows
        second = np.tile(labels + rows, (len(place), 1))
        # The curve of AUC over luck is not straight, so the truth is that of many seeds.
        found = metrics.paired_difference(labels, first, second, resamples=10, starts=starts)
        truth = auc(rng.normal(0, 0.6, 40)) - auc(np.zeros(1))
        missed += not found.low <= truth <= found.high
    assert missed <= 13  # 5 expected, s.d. 2.2; a bootstrap of the seeds misses 20 and more


def test_seeds_count_by_the_pretraining_that_they_start_from() -> None:
    """Six seeds of two pretrainings, which differ in nothing but their pretraining."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 2000)
    noise = rng.normal(0, 1, 2000)
    first = np.stack([labels * shift + noise for shift in (1, 1, 1, 1.5, 1.5, 1.5)])
    second = np.tile(labels + noise, (6, 1))
    apart = metrics.paired_difference(labels, first, second, resamples=400)
    starts = [3, 3, 3, 7, 7, 7]
    within = metrics.paired_difference(labels, first, second, resamples=400, starts=starts)
    assert within.difference == apart.difference
    assert within.high - within.low > 3 * (apart.high - apart.low)  # one degree of freedom
    one = metrics.paired_difference(labels, first, second, resamples=400, starts=[0] * 6)
    assert one == apart


def test_rows_of_a_group_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    labels, first, second = rng.integers(2, size=60), rng.random(60), rng.random(60)
    single = metrics.paired_difference(labels, first, second, resamples=200)
    # Copies of a row say nothing new: the interval stays that of the rows, if they are one group.
    copied = [np.repeat(values, 3) for values in (labels, first, second)]
    grouped = metrics.paired_difference(*copied, resamples=200, groups=np.repeat(np.arange(60), 3))
    assert (grouped.low, grouped.high) == pytest.approx((single.low, single.high))
    apart = metrics.paired_difference(*copied, resamples=200)
    assert apart.high - apart.low < 0.7 * (grouped.high - grouped.low)


@pytest.mark.parametrize("groups", [[7, 7, 7], [1, 2]])
def test_groups_that_cannot_be_drawn_are_refused(groups: list[int]) -> None:
    with pytest.raises(ValueError, match="a group for each of the 3 rows, and two groups at least"):
        metrics.paired_difference([0, 1, 1], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3], groups=groups)
