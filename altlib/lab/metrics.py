"""AUC, Logloss and RelaImpr. of CTR prediction, and whether two models' predictions differ.

RelaImpr. is the relative measure over a random guess (AUC 0.5). A comparison is paired: both models
scored the same rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t
from sklearn.metrics import log_loss, roc_auc_score

from altlib.faults import nearest

Floats = NDArray[np.float64]
Resample = Callable[[NDArray[np.int64]], float]  # how often each row was drawn [N] -> metric


@dataclass(frozen=True)
class Comparison:
    """The first model's metric less the second's, its 95 % interval, and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def auc(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Area under the ROC curve, a tie counting half.

    Args:
        labels: 0 or 1 [N].
        probabilities: any scores that rise with the chance of a click [N].

    Raises:
        ValueError: lengths differ, a value is not finite, or only one class is there.
    """
    return float(roc_auc_score(*_checked(labels, probabilities)))


def logloss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean binary cross entropy in nats, of labels 0 or 1 [N] and click probabilities [N].

    Raises:
        ValueError: as `auc`, or a probability lies outside 0 to 1.
    """
    checked, predicted = _checked(labels, probabilities)
    _check_probabilities(predicted)
    return float(log_loss(checked, predicted))


def rela_impr(a: float, b: float) -> float:
    """Relative improvement of AUC `a` over AUC `b`: (a - 0.5) / (b - 0.5) - 1; NaN where
    `b` is that of a random guess, 0.5."""
    return (a - 0.5) / (b - 0.5) - 1 if b != 0.5 else float("nan")


def paired_difference(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    metric: str = "auc",
    resamples: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
    starts: ArrayLike | None = None,
) -> Comparison:
    """Two models' difference in a metric, and an interval that knows test users and seeds.

    The variance of users is that of a bootstrap. Rows of one user are correlated, so drawing single
    rows gives intervals that are too narrow: `groups` draws all rows of a user together (Field and
    Welsh 2007, the cluster bootstrap). The variance of seeds is that of their differences over
    their number; of seeds that share a pretraining (`starts`), that of the pretrainings' means. The
    sum is judged by Student's t, with the degrees of freedom of Satterthwaite (1946). To draw seeds
    in the bootstrap, too, is not enough: where three seeds differ four times as much as users make
    them, 18 % of the intervals would miss the truth; 8 % of these do. A single seed tells nothing
    of others, and its interval is one of the users alone.

    Scores are sorted once and a resample is counts of rows, so each costs O(N) for each seed.

    Args:
        labels: 0 or 1 [N].
        first: predictions of the first model [N], or of its seeds [S, N], whose metrics are
            averaged.
        second: predictions of the second, of the same seeds.
        metric: "auc" (higher is better) or "logloss" (lower is better).
        resamples: how many, two at least.
        seed: of the draw.
        groups: what is drawn as one, as the user of each row [N]; single rows if None.
        starts: the pretraining of each pair of seeds [S]; each its own if None.

    Raises:
        ValueError: as `auc` or `logloss`, or the metric is unknown, or all rows are one group, or
            the models have different numbers of seeds.
    """
    if metric not in _RESAMPLED:
        raise ValueError(f"There is no bootstrap of '{metric}'; {nearest(metric, _RESAMPLED)}")
    if resamples < 2:
        raise ValueError(f"A variance needs at least two resamples; got {resamples}.")
    one, two = (_of_seeds(metric, labels, scores) for scores in (first, second))
    if len(one) != len(two):
        raise ValueError(f"Seeds are compared in pairs; got {len(one)} and {len(two)} of them.")
    checked, *_ = _checked(labels)
    group = np.arange(checked.size)
    if groups is not None:
        group = np.unique(np.asarray(groups), return_inverse=True)[1]
    if group.shape != checked.shape or not group.any():
        raise ValueError(
            f"A bootstrap needs a group for each of the {checked.size} rows, and two groups at "
            f"least; got {group.max() + 1} groups for {group.size} rows."
        )

    def differences(times: NDArray[np.int64]) -> Floats:
        return np.array([a(times) - b(times) for a, b in zip(one, two, strict=True)])

    draws = _draws(checked, group, resamples, seed)
    of_users = float(np.var([differences(times).mean() for times in draws], ddof=1))
    found = differences(np.ones(checked.size, dtype=np.int64))
    of_seeds, number = _variance_of_mean(found, np.arange(len(found)) if starts is None else starts)
    variance = of_users + of_seeds
    difference = float(found.mean())
    if variance == 0:  # identical rankings, or separations without a single exception
        return Comparison(difference, difference, difference, float(difference == 0))
    freedom = variance**2 / (of_users**2 / group.max() + of_seeds**2 / max(1, number - 1))
    deviation = float(np.sqrt(variance))
    margin = float(t.ppf(0.975, freedom)) * deviation
    p_value = float(2 * t.sf(abs(difference) / deviation, freedom))
    return Comparison(difference, difference - margin, difference + margin, p_value)


def _variance_of_mean(values: Floats, starts: ArrayLike) -> tuple[float, int]:
    """The variance of the mean of seeds' values [S], and how many it is estimated from: the
    pretrainings [S] that they start from, or the seeds, if all start from one; 0 for one seed."""
    place = np.unique(np.asarray(starts), return_inverse=True)[1]
    if not place.any():
        place = np.arange(values.size)
    seeds = np.bincount(place)
    if seeds.size == 1:
        return 0.0, 1
    means = np.bincount(place, values) / seeds
    share = seeds / values.size
    return float(means.var(ddof=1) * (share @ share)), seeds.size


def _resampled_auc(labels: Floats, score: Floats) -> Resample:
    order = np.argsort(score, kind="stable")
    ordered, positive = score[order], labels[order] == 1
    negative_rows, positive_rows = order[~positive], order[positive]
    # For each positive: how many negatives stand below it, and below or tied.
    below = np.searchsorted(ordered[~positive], ordered[positive], side="left")
    within = np.searchsorted(ordered[~positive], ordered[positive], side="right")

    def value(times: NDArray[np.int64]) -> float:
        negatives = np.concatenate(([0], times[negative_rows].cumsum()))
        positives = times[positive_rows]
        beaten = positives @ (negatives[below] + negatives[within]) / 2
        return float(beaten / (positives.sum() * negatives[-1]))

    return value


def _resampled_logloss(labels: Floats, probabilities: Floats) -> Resample:
    _check_probabilities(probabilities)
    edge = np.finfo(np.float64).eps  # as scikit-learn clips
    clipped = np.clip(probabilities, edge, 1 - edge)
    losses = -np.log(np.where(labels == 1, clipped, 1 - clipped))
    return lambda times: float(np.average(losses, weights=times))


_RESAMPLED = {"auc": _resampled_auc, "logloss": _resampled_logloss}


def _of_seeds(metric: str, labels: ArrayLike, scores: ArrayLike) -> list[Resample]:
    """The metric of each seed's scores."""
    pairs = [_checked(labels, seed) for seed in np.atleast_2d(scores)]
    return [_RESAMPLED[metric](checked, score) for checked, score in pairs]


def _draws(
    labels: Floats, group: NDArray[np.int64], resamples: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """How often each row was drawn [N], for each resample; one without both classes is redrawn."""
    generator = np.random.default_rng(seed)
    groups, kept = int(group.max()) + 1, 0
    positive = labels == 1
    while kept < resamples:
        times = np.bincount(generator.integers(groups, size=groups), minlength=groups)[group]
        if 0 < times[positive].sum() < times.sum():
            kept += 1
            yield times


def _checked(labels: ArrayLike, *scores: ArrayLike) -> list[Floats]:
    """Labels and scores as vectors of float64, after the checks that `auc` documents."""
    arrays = [np.asarray(values, dtype=np.float64) for values in (labels, *scores)]
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) > 1 or arrays[0].ndim != 1:
        raise ValueError(f"Labels and predictions must be vectors of one length; got {shapes}.")
    for what, array in zip(("labels", *("predictions",) * len(scores)), arrays, strict=True):
        wrong = np.flatnonzero(~np.isfinite(array))
        if wrong.size:
            raise ValueError(
                f"{wrong.size} of the {what} are not finite numbers; the first is "
                f"{array[wrong[0]]} in row {wrong[0]}."
            )
    found = np.unique(arrays[0])
    if not np.isin(found, (0, 1)).all():
        raise ValueError(f"Labels must be 0 or 1; found {found[~np.isin(found, (0, 1))][:5]}.")
    if found.size != 2:
        raise ValueError(f"Labels must hold both 0 and 1; found only {found}.")
    return arrays


def _check_probabilities(probabilities: Floats) -> None:
    wrong = np.flatnonzero((probabilities < 0) | (probabilities > 1))
    if wrong.size:
        raise ValueError(
            f"Logloss needs probabilities within 0 to 1; row {wrong[0]} holds "
            f"{probabilities[wrong[0]]}. Did you pass logits?"
        )
