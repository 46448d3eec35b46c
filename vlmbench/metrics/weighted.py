"""Diagnosis metrics under many weightings of the same examples at once: what makes a bootstrap take a second.

A resample with replacement is a vector of weights on the examples, so R resamples are a matrix (R, N). Metrics of
decisions are functions of weighted sums; those of ranking are in `ranked`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmbench.metrics.diagnosis import OneVsRest
from vlmbench.metrics.ranked import Ranked

Floats = NDArray[np.float64]


def ranking(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Compute AUROC and average precision of one column under each weighting, as `ranked.Ranked` does.

    Args:
        scores: (N,) finite, any range.
        positive: (N,).
        weights: (R, N), not negative.

    Returns:
        Two arrays (R,), NaN where a class has no weight.
    """
    ranked = Ranked(scores, positive, np.arange(len(scores)), len(scores))
    of_examples = np.ascontiguousarray(weights.T)
    return ranked.auroc(of_examples), ranked.average_precision(of_examples)


def decided(task: OneVsRest, weights: Floats) -> dict[str, Floats]:
    """Compute accuracy, balanced accuracy and F1 under each weighting.

    Args:
        task: The decided task, N examples.
        weights: (R, N), not negative.

    Returns:
        Per metric an array (R,), NaN where undefined; the conventions are those of `diagnosis.evaluate`.
    """
    return decided_from(task.exclusive, weights @ sufficient(task))


def sufficient(task: OneVsRest) -> Floats:
    """Return, of a decided task, the columns (N, 2 + 3L) whose weighted sums are all that its metrics need."""
    blocks = (np.ones((len(task.correct), 1)), task.correct[:, None], task.truth & task.predicted)
    return np.concatenate([*blocks, task.truth, task.predicted], axis=1, dtype=np.float64)


def decided_from(exclusive: bool, sums: Floats) -> dict[str, Floats]:
    """Compute the metrics of `decided` from weighted sums (R, 2 + 3L) of the columns of `sufficient`."""
    total, correct = sums[:, :1], sums[:, 1]
    hits, truths, decisions = np.split(sums[:, 2:], 3, axis=1)
    recall = _divide(hits, truths)
    if exclusive:
        balanced = nan_means(recall)
        balanced[(truths > 0).sum(axis=1) < 2] = np.nan
    else:
        specificity = _divide(total - truths - decisions + hits, total - truths)
        balanced = nan_means((recall + specificity) / 2)
    return {
        "accuracy": _divide(correct, total[:, 0]),
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


def freedom(task: OneVsRest, groups: Sequence[Any] | NDArray) -> dict[str, float]:
    """Return the degrees of freedom of the variances of the metrics that compare classes.

    A difference of positives and negatives varies with both: of p groups with a positive and q with a negative the
    degrees of freedom are Welch's (1947, Biometrika 34:28-35) for equal spread. With p = q they are those of all
    groups; with few positives they are little more than p - 1. Of a macro mean they are those of its best column.
    """
    names = np.asarray(groups, dtype=str)
    best = 0.0
    for truth in task.truth.T:
        p, q = len(np.unique(names[truth])), len(np.unique(names[~truth]))
        if min(p, q) > 1:
            best = max(best, (1 / p + 1 / q) ** 2 / (1 / (p**2 * (p - 1)) + 1 / (q**2 * (q - 1))))
    best = min(best, len(np.unique(names)) - 1.0)
    return dict.fromkeys(("auroc", "average_precision", "balanced_accuracy"), best)


def nan_means(columns: Floats) -> Floats:
    """Return, of (R, L), the mean (R,) of each row over what is not NaN; NaN, without a warning, if nothing is left."""
    defined = ~np.isnan(columns)
    return _divide(np.where(defined, columns, 0.0).sum(axis=1), defined.sum(axis=1))


def _divide(numerator: Floats, denominator: NDArray) -> Floats:
    """Divide, giving NaN for a denominator of zero."""
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)
