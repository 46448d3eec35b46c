"""Bootstrap draws of one metric for many cells at once, all on the same resamples, so that differences are paired.

A cell's predictions are first reduced to `Outcomes`, in the order of their example ids; `draw` then gives every cell's
metric under the same resamples of groups. A difference of two rows of draws is a paired difference: what makes a
resample hard makes it hard for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vlmbench.metrics import diagnosis, weighted
from vlmbench.metrics.bootstrap import means, resample
from vlmbench.metrics.frame import diagnosis_arrays, vqa_values

Floats = NDArray[np.float64]


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
    functions = [
        means({cell.metric: cell.values}) if cell.values is not None else weighted.statistics(cell.columns)  # type: ignore[arg-type]
        for cell in cells
    ]
    whole = np.ones((1, len(codes)))
    points = np.array([function(whole)[cell.metric][0] for function, cell in zip(functions, cells, strict=True)])
    parts = [
        np.stack([function(weights)[cell.metric] for function, cell in zip(functions, cells, strict=True)])
        for weights in resample(codes, n_resamples, seed)
    ]
    return points, np.concatenate([*parts, np.zeros((len(cells), 0))], axis=1)
