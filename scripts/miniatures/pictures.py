"""Synthetic pictures for the miniatures: smooth random textures, no two alike, with a mark for the positive class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def picture(
    rng: np.random.Generator, size: int = 64, *, marked: bool = False, colour: bool = True
) -> NDArray[np.uint8]:
    """Return (size, size, 3) or, without colour, (size, size) of 8 bits.

    Args:
        rng: Decides what it looks like.
        size: Side in pixels.
        marked: Whether a bright disc says that the image is positive.
        colour: Three channels or one.
    """
    channels = 3 if colour else 1
    coarse = rng.uniform(40, 190, (8, 8, channels))
    steps = np.linspace(0, 7, size)
    low, share = np.floor(steps).astype(int).clip(0, 6), steps - np.floor(steps).clip(0, 6)
    rows = coarse[low] * (1 - share)[:, None, None] + coarse[low + 1] * share[:, None, None]
    smooth = rows[:, low] * (1 - share)[None, :, None] + rows[:, low + 1] * share[None, :, None]
    if marked:
        y, x = np.mgrid[:size, :size] / size
        centre = rng.uniform(0.3, 0.7, 2)
        smooth[np.hypot(y - centre[0], x - centre[1]) < 0.12] = 245
    pixels = smooth.clip(0, 255).astype(np.uint8)
    return pixels if colour else pixels[..., 0]
