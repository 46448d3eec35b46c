"""How far a score moves with the wording of what is asked, beside how far it moves with who is in the sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def spread(points: Floats, draws: Floats, *, confidence: float) -> dict[str, Any]:
    """Return the spread of one metric over wordings, without the part that the sample makes.

    Values of C wordings on the same examples differ by chance too. `sd` is the square root of their variance minus the
    mean variance over wordings of the errors in each resample, the part of chance; below 0 it counts as 0.

    Args:
        points: (C,) a value for each wording.
        draws: (C, R) the same on shared resamples of groups.
        confidence: Of the interval.

    Returns:
        `min` and `max` of the values, and `sd` with `low` and `high`, in the metric's unit; None where undefined, and
        then `reason` says why.
    """
    if len(points) < 2 or np.isnan(points).any():
        return {"min": None, "max": None, "sd": None, "low": None, "high": None, "reason": "the metric is undefined"}
    kept = draws[:, ~np.isnan(draws).any(axis=0)]
    ends = {"min": float(points.min()), "max": float(points.max())}
    if kept.shape[1] < 2:
        return {**ends, "sd": None, "low": None, "high": None, "reason": "it is undefined in the resamples"}
    observed = float(points.var(ddof=1))
    noise = float((kept - points[:, None]).var(axis=0, ddof=1).mean())
    # A resample has the noise of the sample and its own: it is taken off twice.
    moved = np.sqrt(np.maximum(0, kept.var(axis=0, ddof=1) - 2 * noise))
    low, high = np.quantile(moved, [(1 - confidence) / 2, (1 + confidence) / 2])
    sd = math.sqrt(max(0.0, observed - noise))
    return {**ends, "sd": sd, "low": min(float(low), sd), "high": max(float(high), sd), "reason": ""}
