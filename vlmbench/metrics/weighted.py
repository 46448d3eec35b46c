"""Diagnosis metrics under many weightings of the same examples at once: what makes a bootstrap take a second.

A resample with replacement is a vector of weights on the examples, so R resamples are a matrix (R, N). Scores are
sorted once; for every resample the counts above each threshold are then cumulative sums of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmbench.metrics.diagnosis import OneVsRest

Floats = NDArray[np.float64]


def ranking(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Compute AUROC and average precision of one column under each weighting.

    AUROC is the weighted share of (positive, negative) pairs that are ranked rightly, a tie counting one half (Hanley &
    McNeil 1982). Average precision is the sum over positives, by weight, of the precision at their own score. Both
    equal scikit-learn's with `sample_weight`.

    Args:
        scores: (N,) finite, any range.
        positive: (N,).
        weights: (R, N), not negative.

    Returns:
        Two arrays (R,), NaN where a class has no weight.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, is_positive = scores[order], positive[order]
    # For each positive, where its run of equal scores starts and ends in the descending order.
    start = np.searchsorted(-ranked, -ranked[is_positive], side="left")
    end = np.searchsorted(-ranked, -ranked[is_positive], side="right")

    weights = weights[:, order]
    of_positive = weights[:, is_positive]
    negatives_above = _cumulate(np.where(is_positive, 0.0, weights))
    positives_above = _cumulate(np.where(is_positive, weights, 0.0))
    n_positive, n_negative = positives_above[:, -1], negatives_above[:, -1]

    misranked = (of_positive * (negatives_above[:, start] + negatives_above[:, end])).sum(axis=1) / 2
    hits = positives_above[:, end]
    precision = _divide(hits, hits + negatives_above[:, end])
    # A positive without weight may have nothing at all above it: its precision is 0/0 and does not count.
    precise = np.where(of_positive > 0, of_positive * precision, 0.0).sum(axis=1)
    undefined = (n_positive <= 0) | (n_negative <= 0)
    auroc = np.where(undefined, np.nan, 1 - _divide(misranked, n_positive * n_negative))
    average_precision = np.where(undefined, np.nan, _divide(precise, n_positive))
    return auroc, average_precision


def decided(task: OneVsRest, weights: Floats) -> dict[str, Floats]:
    """Compute accuracy, balanced accuracy and F1 under each weighting.

    Args:
        task: The decided task, N examples.
        weights: (R, N), not negative.

    Returns:
        Per metric an array (R,), NaN where undefined; the conventions are those of `diagnosis.evaluate`.
    """
    total = weights.sum(axis=1, keepdims=True)
    hits = weights @ (task.truth & task.predicted).astype(np.float64)
    truths = weights @ task.truth.astype(np.float64)
    decisions = weights @ task.predicted.astype(np.float64)
    recall = _divide(hits, truths)
    if task.exclusive:
        balanced = nan_means(recall)
        balanced[(truths > 0).sum(axis=1) < 2] = np.nan
    else:
        specificity = _divide(total - truths - decisions + hits, total - truths)
        balanced = nan_means((recall + specificity) / 2)
    return {
        "accuracy": _divide(weights @ task.correct, total[:, 0]),
        "balanced_accuracy": balanced,
        "f1": nan_means(_divide(2 * hits, truths + decisions)),
    }


def statistics(task: OneVsRest) -> Callable[[Floats], dict[str, Floats]]:
    """Return the diagnosis metrics as a function of weights (R, N), as `bootstrap.intervals` takes it.

    The classes or labels that a macro mean covers are those on which the metric is defined in the resample itself.
    """

    def compute(weights: Floats) -> dict[str, Floats]:
        pairs = [ranking(task.scores[:, k], task.truth[:, k], weights) for k in range(task.truth.shape[1])]
        auroc, average_precision = (nan_means(np.stack(column, axis=1)) for column in zip(*pairs, strict=True))
        return {"auroc": auroc, "average_precision": average_precision, **decided(task, weights)}

    return compute


def support(task: OneVsRest, groups: Sequence[Any] | NDArray) -> dict[str, int]:
    """Return, as `bootstrap.intervals` takes it, among how many groups the metrics that compare classes can vary.

    All positives of one patient make an AUROC whose interval says nothing of other patients' positives: of a column it
    is the smaller number of groups with a positive and with a negative; of a macro mean that of its best column.
    """
    names = np.asarray(groups, dtype=str)
    of_columns = [min(len(np.unique(names[truth])), len(np.unique(names[~truth]))) for truth in task.truth.T]
    return dict.fromkeys(("auroc", "average_precision", "balanced_accuracy"), max(of_columns))


def nan_means(columns: Floats) -> Floats:
    """Return, of (R, L), the mean (R,) of each row over what is not NaN; NaN, without a warning, if nothing is left."""
    defined = ~np.isnan(columns)
    return _divide(np.where(defined, columns, 0.0).sum(axis=1), defined.sum(axis=1))


def _cumulate(weights: Floats) -> Floats:
    """(R, N) -> (R, N + 1): entry k is the weight of the first k."""
    out = np.zeros((weights.shape[0], weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=out[:, 1:])
    return out


def _divide(numerator: Floats, denominator: NDArray) -> Floats:
    """Divide, giving NaN for a denominator of zero."""
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)
