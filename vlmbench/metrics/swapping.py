"""What a gap between subgroups would be if patients swapped them: the gap that noise and small numbers make alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from vlmbench.metrics.draws import Outcomes
from vlmbench.metrics.parts import function

Floats = NDArray[np.float64]


def permuted_gaps(
    cells: Sequence[Outcomes], labels: NDArray, names: Sequence[str], codes: NDArray, n: int, seed: int
) -> Floats:
    """Gaps (P,) when patients swap the subgroups of their examples.

    They swap among patients with the same findings, so that a subgroup in which a finding is commoner stays so and
    counts for no gap by itself.
    """
    rng = np.random.default_rng([seed, 1])
    places = {name: place for place, name in enumerate(names)}
    coded = np.array([places.get(label, -1) for label in labels])
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 2))
    sizes = np.diff(starts)
    within = np.empty(len(codes), dtype=np.int64)  # place of an example among those of its patient
    within[order] = np.arange(len(codes)) - np.repeat(starts[:-1], sizes)
    strata = _strata(cells[0], codes)
    computed = [function(cell) for cell in cells]
    gaps: list[Floats] = []
    for _ in range(0, n, step := max(1, 2_000_000 // (len(codes) * len(names)))):
        rows = min(step, n - sum(len(some) for some in gaps))
        giver = np.tile(np.arange(len(sizes)), (rows, 1))
        for stratum in np.unique(strata):
            members = np.flatnonzero(strata == stratum)
            giver[:, members] = rng.permuted(np.tile(members, (rows, 1)), axis=1)
        of_examples = giver[:, codes]
        given = coded[order[starts[of_examples] + within % sizes[of_examples]]]
        weights = np.concatenate([given == place for place in range(len(names))]).astype(np.float64)
        values = np.mean([compute(weights) for compute in computed], axis=0).reshape(len(names), rows)
        gaps.append(values.max(axis=0) - values.min(axis=0))
    flat = np.concatenate([*gaps, np.zeros(0)])
    return np.asarray(flat[~np.isnan(flat)])


def _strata(one: Outcomes, codes: NDArray) -> NDArray[np.int64]:
    """(G,) what findings a patient has, for a task of classes; one stratum for all else."""
    out = np.zeros(codes.max() + 1, dtype=np.int64)
    if one.columns is not None and (one.columns.exclusive or one.columns.truth.shape[1] == 1):
        np.maximum.at(out, codes, one.columns.truth @ np.arange(1, one.columns.truth.shape[1] + 1))
    return out


def tail(value: float, permuted: Floats) -> float:
    """Permutation p-value; where under ten permutations reach the gap, by a gamma distribution of their moments.

    Winkler et al. 2016, "Faster permutation inference in brain imaging", NeuroImage 141:502-516.
    """
    if len(permuted) < 20:
        return float("nan")
    reached = int((permuted >= value - 1e-12).sum())
    deviation = float(permuted.std(ddof=1))
    if reached >= 10 or deviation == 0:
        return (1 + reached) / (1 + len(permuted))
    return float(stats.pearson3.sf(value, float(stats.skew(permuted)), float(permuted.mean()), deviation))
