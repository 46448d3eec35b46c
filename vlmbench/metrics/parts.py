"""A part of a test set: outcomes of some examples, and their one metric as a function of weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vlmbench.metrics import weighted
from vlmbench.metrics.bootstrap import means
from vlmbench.metrics.diagnosis import OneVsRest
from vlmbench.metrics.draws import Outcomes

Floats = NDArray[np.float64]


def ranks(one: Outcomes) -> bool:
    """Return whether the metric compares findings with their absence, and so needs both."""
    return one.columns is not None and one.metric in ("auroc", "average_precision", "balanced_accuracy")


def support(one: Outcomes) -> int:
    """Return the number of groups among which the metric can vary; see `weighted.support`."""
    if one.values is not None:
        return len(np.unique(one.groups[~np.isnan(one.values)]))
    if one.columns is None or not len(one.groups):
        return 0
    return weighted.support(one.columns, one.groups).get(one.metric, len(np.unique(one.groups)))


def subset(one: Outcomes, mask: NDArray[np.bool_]) -> Outcomes:
    """Return the outcomes of the examples of a mask (N,)."""
    task, columns = one.columns, None
    if task is not None:
        parts = (task.truth[mask], task.predicted[mask], task.scores[mask], task.correct[mask])
        columns = OneVsRest(*parts, task.exclusive)
    values = None if one.values is None else one.values[mask]
    return replace(one, example_ids=one.example_ids[mask], groups=one.groups[mask], values=values, columns=columns)


def function(one: Outcomes) -> Callable[[Floats], Floats]:
    """Return the one metric as a function of weights (R, N) -> (R,), NaN where undefined.

    Raises:
        ValueError: The outcomes hold neither values nor columns.
    """
    if one.values is not None:
        mean = means({one.metric: one.values})
        return lambda weights: mean(weights)[one.metric]
    task = one.columns
    if task is None:
        raise ValueError(f"the outcomes of {one.metric} hold neither values nor columns")
    ranking = ("auroc", "average_precision")
    if one.metric not in ranking:
        return lambda weights: weighted.decided(task, weights)[one.metric]
    place = ranking.index(one.metric)

    def compute(weights: Floats) -> Floats:
        pairs = zip(task.scores.T, task.truth.T, strict=True)
        columns = [weighted.ranking(scores, truth, weights)[place] for scores, truth in pairs]
        return weighted.nan_means(np.stack(columns, axis=1))

    return compute
