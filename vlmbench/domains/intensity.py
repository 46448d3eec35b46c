"""Mapping numbers of any depth to the 8 bits that image processors take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Percentiles taken as black and white where a file declares no display range; the pair that MedSAM uses for all
#: non-CT images (Ma et al. 2024, "Segment anything in medical images", Methods, data preprocessing).
DISPLAY_PERCENTILES = (0.5, 99.5)


def to_8_bit(values: NDArray[np.generic], low: float, high: float) -> NDArray[np.uint8]:
    """Map `low..high` linearly to 0..255, clipping what lies outside.

    Args:
        values: Any shape, any real type. NaN becomes 0.
        low: Value shown as 0.
        high: Value shown as 255; an empty range (`high <= low`) gives an all-black image.
    """
    if not high > low:
        return np.zeros(values.shape, dtype=np.uint8)
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(np.nan_to_num(scaled, nan=0.0).clip(0.0, 255.0)).astype(np.uint8)


def display_range(values: NDArray[Any]) -> tuple[float, float]:
    """Return the values to show as black and white where the file does not say.

    A 16-bit container says nothing of the range in use: 12-bit data fill a sixteenth of it, and mapping the whole
    container to 0..255 would leave such an image nearly black. The extremes of the image itself would hand the scale
    to one burnt-in marker or dead pixel. Percentiles avoid both, at the price of a scale of its own for each image.

    Raises:
        ValueError: No value is finite.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise ValueError("no pixel has a finite value")
    low, high = (float(x) for x in np.percentile(finite, DISPLAY_PERCENTILES))
    if not high > low:  # a few bright pixels on an even ground: percentiles see the ground alone
        low, high = float(finite.min()), float(finite.max())
    return low, high
