"""Learning curves: with how many labelled examples does one side reach the level of another?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def size_reaching(sizes: ArrayLike, levels: ArrayLike, target: ArrayLike) -> Floats:
    """Return the training size at which a curve first reaches a level, between two sizes linear in the log of the size.

    Args:
        sizes: (S,) ascending, above 0.
        levels: (S, R) the curve under each resample.
        target: (R,) the level to reach.

    Returns:
        (R,) sizes; the smallest where it is reached there already, so that the true one may be smaller; infinite where
        it is not reached; NaN where something is undefined.
    """
    places, curve, wanted = np.log(np.asarray(sizes, float)), np.asarray(levels, float), np.asarray(target, float)
    out = np.full(wanted.shape, np.inf)
    for step in range(len(places) - 1, 0, -1):  # from the right, so that the first crossing stays
        before, after = curve[step - 1], curve[step]
        crosses = (before < wanted) & (after >= wanted)
        rise = np.where(crosses, after - before, 1.0)
        place = places[step - 1] + (wanted - before) / rise * (places[step] - places[step - 1])
        out = np.where(crosses, np.exp(np.where(crosses, place, 0.0)), out)
    out = np.where(curve[0] >= wanted, float(np.exp(places[0])), out)
    return np.where(np.isnan(curve).any(axis=0) | np.isnan(wanted), np.nan, out)


def interval_of_sizes(sizes: Floats, confidence: float) -> tuple[float, float]:
    """Return the percentiles of drawn sizes, of which some may be infinite; NaN where none is defined."""
    defined = np.sort(sizes[~np.isnan(sizes)])
    if not len(defined):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    # Without interpolation, which makes a NaN between a number and infinity; outwards, so that nothing is cut off.
    low, high = np.floor(tail * (len(defined) - 1)), np.ceil((1 - tail) * (len(defined) - 1))
    return float(defined[int(low)]), float(defined[int(high)])
