"""The Pareto front of a score against a cost, and how sure it is that a point lies on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def front(costs: ArrayLike, scores: ArrayLike) -> NDArray[np.bool_]:
    """Return which points nothing dominates: none is as cheap and as good, and cheaper or better.

    Points of the same cost and the same score are on the front together.

    Args:
        costs: (P,) of which less is better.
        scores: (P,) or (P, R) of which more is better; NaN is on no front and dominates nothing.

    Returns:
        The shape of `scores`.
    """
    prices, values = np.asarray(costs, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    columns = np.where(np.isnan(values), -np.inf, values).reshape(len(prices), -1)
    out = np.zeros(columns.shape, dtype=bool)
    best = np.full(columns.shape[1], -np.inf)  # of what is cheaper
    for price in np.unique(prices):
        same = np.flatnonzero(prices == price)
        highest = columns[same].max(axis=0)
        out[same] = (columns[same] == highest) & (columns[same] > best)
        best = np.maximum(best, highest)
    return out.reshape(values.shape)
