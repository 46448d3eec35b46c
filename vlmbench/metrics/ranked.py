"""AUROC and average precision of one column under thousands of weightings of groups.

A resample gives each group a weight. Both metrics need, of each positive, the weight of what is ranked above it. Whole
runs of examples between two such places count as one, and the sums of runs are a sparse matrix (runs x groups) times
the weights (groups x resamples): the examples themselves are never weighted one by one, and every pass goes along
contiguous resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.floating]


class Ranked:
    """The order of one column's scores, laid out once for any number of weightings.

    Args:
        scores: (N,) finite, any range.
        positive: (N,).
        codes: (N,) group of each example, 0..G-1.
        n_groups: G.
    """

    def __init__(
        self, scores: NDArray[np.float64], positive: NDArray[np.bool_], codes: NDArray[np.intp], n_groups: int
    ) -> None:
        self._n_groups = n_groups
        of_positives, of_negatives = (np.flatnonzero(side) for side in (positive, ~positive))
        # Descending, since "above" is where the weight is summed up from.
        of_positives = of_positives[np.argsort(-scores[of_positives], kind="stable")]
        of_negatives = of_negatives[np.argsort(-scores[of_negatives], kind="stable")]
        self._positives, self._negatives = codes[of_positives], codes[of_negatives]
        self._levels, self._level = np.unique(-scores[of_positives], return_inverse=True)
        # Of each distinct score of positives, how many negatives are above it, and how many at or above it.
        self._above = np.searchsorted(-scores[of_negatives], self._levels, side="left")
        self._at = np.searchsorted(-scores[of_negatives], self._levels, side="right")
        self._built: dict[str, sparse.csr_matrix] = {}

    def auroc(self, weights: Floats) -> NDArray[np.float64]:
        """Return the weighted share of (positive, negative) pairs ranked rightly, a tie counting one half.

        Hanley & McNeil 1982, Radiology 143:29-36; equal to scikit-learn's with `sample_weight`.

        Args:
            weights: (G, R), not negative. Float32 is twice as fast; sums of counts are exact in it below 2**24.

        Returns:
            (R,), NaN where a class has no weight.
        """
        cuts = np.unique(np.concatenate([self._above, self._at]))
        # Positives between the same negatives are one run.
        runs, run = np.unique(np.stack([self._above, self._at], axis=1), axis=0, return_inverse=True)
        in_runs = self._sums("runs", run.reshape(-1)[self._level], self._positives, len(runs), weights)
        ranks = np.arange(len(self._negatives))
        segment = np.searchsorted(cuts, ranks, side="right")
        negatives = _accumulate(self._sums("cuts", segment, self._negatives, len(cuts) + 1, weights))
        start, end = np.searchsorted(cuts, runs.T)
        misranked = np.einsum("ij,ij->j", in_runs, negatives[start], dtype=np.float64)
        tied = start != end
        if tied.any():
            between = negatives[end[tied]] - negatives[start[tied]]
            misranked += np.einsum("ij,ij->j", in_runs[tied], between, dtype=np.float64) / 2
        n_positive, n_negative = in_runs.sum(axis=0, dtype=np.float64), negatives[-1].astype(np.float64)
        return np.asarray(1 - _divide(misranked, n_positive * n_negative))

    def average_precision(self, weights: Floats) -> NDArray[np.float64]:
        """Return the sum over positives, by weight, of the precision at their own score, as scikit-learn does.

        Args:
            weights: See `auroc`.

        Returns:
            (R,), NaN where a class has no weight.
        """
        n_levels = len(self._levels)
        of_levels = self._sums("levels", self._level, self._positives, n_levels, weights)
        segment = np.searchsorted(self._at, np.arange(len(self._negatives)), side="right")
        negatives = _accumulate(self._sums("at", segment, self._negatives, n_levels + 1, weights))
        hits = _accumulate(of_levels.copy())
        # A positive without weight may have nothing at all above it: its precision is 0/0 and does not count.
        precision = np.zeros(hits.shape)
        np.divide(hits, hits + negatives[:-1], out=precision, where=hits > 0, dtype=np.float64)
        precise = np.einsum("ij,ij->j", of_levels, precision, dtype=np.float64)
        n_positive = of_levels.sum(axis=0, dtype=np.float64)
        undefined = (n_positive <= 0) | (negatives[-1] <= 0)
        return np.where(undefined, np.nan, _divide(precise, n_positive))

    def _sums(
        self, name: str, rows: NDArray[np.intp], groups: NDArray[np.intp], n_rows: int, weights: Floats
    ) -> Floats:
        """Sum the weights of examples, given by their row and group, within each row: (n_rows, R)."""
        if name not in self._built or self._built[name].dtype != weights.dtype:
            ones = np.ones(len(rows), dtype=weights.dtype)
            self._built[name] = sparse.csr_matrix((ones, (rows, groups)), shape=(n_rows, self._n_groups))
        return np.asarray(self._built[name] @ weights)


def _accumulate(rows: Floats) -> Floats:
    """Make each row, in place, the sum of those up to it; numpy's own along this axis strides, and takes ten times."""
    for k in range(1, len(rows)):
        rows[k] += rows[k - 1]
    return rows


def _divide(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)
