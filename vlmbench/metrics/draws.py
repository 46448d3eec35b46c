"""Bootstrap draws of one metric for many cells at once, all on the same resamples, so that differences are paired.

A cell's predictions are first reduced to `Outcomes`, in the order of their example ids; `draw` then gives every cell's
metric under the same resamples of groups. A difference of two rows of draws is a paired difference: what makes a
resample hard makes it hard for both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from vlmbench.metrics import diagnosis, weighted
from vlmbench.metrics.bootstrap import group_counts
from vlmbench.metrics.frame import diagnosis_arrays, vqa_values
from vlmbench.metrics.ranked import Ranked

Floats = NDArray[np.float64]

# Resamples and weights at a time: enough to amortise a call, few enough for the processor's cache.
_AT_ONCE, _CHUNK = 512, 4_000_000


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What one cell's predictions give for one metric.

    Attributes:
        metric: Its name.
        example_ids: (N,) ascending.
        groups: (N,) the unit that is resampled.
        values: (N,) for a metric that is a mean over examples, NaN where it does not apply; else None.
        columns: For a metric of ranking or decisions, the task as one-vs-rest columns; else None.
    """

    metric: str
    example_ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    values: Floats | None = None
    columns: diagnosis.OneVsRest | None = None


def outcomes(frame: pd.DataFrame, task: str, metric: str, *, multi_label: bool = False) -> Outcomes:
    """Reduce a predictions table to what a metric needs.

    Args:
        frame: As `frame.score_frame` takes it.
        task: `diagnosis` or `vqa`.
        metric: One of `diagnosis.METRICS`, or a metric of `vqa.evaluate`.
        multi_label: Diagnosis: whether an example may carry several labels or none.

    Raises:
        ValueError: The metric is not one of the task's, or the frame does not fit.
    """
    frame = frame.sort_values("example_id", kind="stable")
    ids, groups = (frame[name].to_numpy(dtype=str) for name in ("example_id", "group"))
    if task == "vqa":
        values = vqa_values(frame)
        if metric not in values:
            raise ValueError(f"metric {metric!r} is none of vqa's: {', '.join(values)}")
        return Outcomes(metric, ids, groups, values=values[metric])
    if metric not in diagnosis.METRICS:
        raise ValueError(f"metric {metric!r} is none of diagnosis': {', '.join(diagnosis.METRICS)}")
    scores, targets = diagnosis_arrays(frame, multi_label)
    return Outcomes(metric, ids, groups, columns=diagnosis.one_vs_rest(scores, targets, multi_label=multi_label))


def draw(cells: Sequence[Outcomes], *, n_resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Draw the same resamples of groups for all cells.

    Args:
        cells: C cells on the same examples in the same groups, of one metric.
        n_resamples: Number of resamples R.
        seed: Give another to each data set: resamples of data sets that are drawn by one seed are not independent.

    Returns:
        Points (C,) and draws (C, R); NaN where the metric is undefined.

    Raises:
        ValueError: The cells are not on the same examples.
    """
    first = cells[0]
    for cell in cells:
        if not (np.array_equal(cell.example_ids, first.example_ids) and np.array_equal(cell.groups, first.groups)):
            raise ValueError("the cells were not tested on the same examples, so that nothing about them is paired")
    _, codes = np.unique(first.groups, return_inverse=True)
    n_groups = int(codes.max()) + 1
    prepared = [_prepared(cell, codes, n_groups) for cell in cells]
    # Counts of examples add up exactly in float32 below 2**24, and in half the time.
    dtype = np.float32 if len(codes) < 2**22 else np.float64
    whole = _under(prepared, np.ones((n_groups, 1), dtype=dtype), map)[:, 0]
    out = np.empty((len(cells), n_resamples))
    done = 0
    with ThreadPoolExecutor(_cores()) as pool:
        # Few weights are done before a thread has started.
        apply = pool.map if len(codes) * n_resamples > _CHUNK else map
        for counts in group_counts(n_groups, n_resamples, seed, rows=max(1, min(_AT_ONCE, _CHUNK // n_groups))):
            out[:, done : done + len(counts)] = _under(prepared, counts.T.astype(dtype, order="C"), apply)
            done += len(counts)
    return whole, out


def freedom(cell: Outcomes) -> float:
    """Return the degrees of freedom of a metric's variance over groups; below 1 where it cannot vary.

    Of a mean over examples, one less than the groups that hold any; of a metric of ranking or decisions, see
    `weighted.freedom`.
    """
    if cell.values is not None:
        return len(np.unique(cell.groups[~np.isnan(cell.values)])) - 1.0
    if cell.columns is None:
        raise ValueError("outcomes need values or columns")
    n_groups = len(np.unique(cell.groups))
    return weighted.freedom(cell.columns, cell.groups).get(cell.metric, n_groups - 1.0)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A cell reduced to groups.

    Attributes:
        sums: (G, J) sums over each group's examples.
        metric: The metric (R,) of weighted sums (R, J) and of the weights (G, R) themselves.
    """

    sums: Floats
    metric: Callable[[Floats, NDArray[np.floating]], Floats]


def _prepared(cell: Outcomes, codes: NDArray[np.intp], n_groups: int) -> _Prepared:
    in_groups = sparse.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(n_groups, len(codes)))
    if cell.values is not None:
        applies = ~np.isnan(cell.values)
        columns = np.stack([np.where(applies, cell.values, 0.0), applies], axis=1)
        return _Prepared(in_groups @ columns, lambda sums, _: _mean(sums))
    task = cell.columns
    if task is None:
        raise ValueError("outcomes need values or columns")
    if cell.metric not in {"auroc", "average_precision"}:
        columns = weighted.sufficient(task)
        return _Prepared(in_groups @ columns, lambda sums, _: weighted.decided_from(task.exclusive, sums)[cell.metric])
    ranked = [Ranked(scores, truth, codes, n_groups) for scores, truth in zip(task.scores.T, task.truth.T, strict=True)]

    def macro(_: Floats, weights: NDArray[np.floating]) -> Floats:
        return weighted.nan_means(np.stack([getattr(column, cell.metric)(weights) for column in ranked], axis=1))

    return _Prepared(np.zeros((n_groups, 0)), macro)


def _under(
    prepared: Sequence[_Prepared], weights: NDArray[np.floating], apply: Callable[..., Iterable[Floats]]
) -> Floats:
    """Return every cell's metric (C, R) under weights (G, R)."""
    # One product for the sums of all cells: the weights are read once.
    sums = np.concatenate([one.sums for one in prepared], axis=1).T @ weights.astype(np.float64)
    parts = np.split(sums, np.cumsum([one.sums.shape[1] for one in prepared])[:-1])
    return np.stack(list(apply(lambda one, part: one.metric(part.T, weights), prepared, parts)))


def _mean(sums: Floats) -> Floats:
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
