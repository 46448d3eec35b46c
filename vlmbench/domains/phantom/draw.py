"""Drawing primitives that the renderers share: grids, soft shapes, noise, strokes, speckle, finishing.

Lengths are shares of the image's side, so that a scene looks the same at any size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from vlmbench.domains.phantom.spec import Field, Pixels, Rng

_SUPERSAMPLING = 4
# Root of the mean of the summed squared weights of a uniform cubic B-spline: white noise of unit variance comes out
# of one axis of the interpolation with this standard deviation.
_SPLINE_STD = 0.692


@dataclass(frozen=True, slots=True)
class View:
    """A small similarity that maps anatomy coordinates to the image: every image is positioned a little differently.

    Attributes:
        dx: Shift to the right.
        dy: Shift down.
        zoom: Magnification about the centre.
        angle: Rotation, in radians.
    """

    dx: float = 0.0
    dy: float = 0.0
    zoom: float = 1.0
    angle: float = 0.0

    def grid(self, size: int) -> tuple[Field, Field]:
        """Return x and y of every pixel centre in anatomy coordinates, each (size, size)."""
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
        x, y = np.meshgrid(axis - np.float32(self.dx), axis - np.float32(self.dy))
        c, s = np.float32(np.cos(self.angle) / self.zoom), np.float32(np.sin(self.angle) / self.zoom)
        return c * x + s * y + np.float32(0.5), -s * x + c * y + np.float32(0.5)

    def points(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map points (n, 2) of the anatomy to the image."""
        c, s = np.cos(self.angle) * self.zoom, np.sin(self.angle) * self.zoom
        turned: NDArray[np.float64] = (np.asarray(points, float) - 0.5) @ np.array([[c, s], [-s, c]])
        return turned + np.array([0.5 + self.dx, 0.5 + self.dy])


def step(distance: Field, softness: float) -> Field:
    """Return a soft step: 0 far below zero, 1 far above, (1 + tanh) / 2 in between."""
    return np.float32(0.5) + np.float32(0.5) * np.tanh(distance / np.float32(softness))


def radial(x: Field, y: Field, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> Field:
    """Return the elliptic radius of every pixel about a centre: 1 on the ellipse."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    return np.hypot((c * dx + s * dy) / np.float32(rx), (-s * dx + c * dy) / np.float32(ry))


def ellipse(
    x: Field, y: Field, cx: float, cy: float, rx: float, ry: float, angle: float = 0.0, soft: float = 0.15
) -> Field:
    """Return a soft-edged ellipse in [0, 1]; `soft` is a share of its radius."""
    return step(1 - radial(x, y, cx, cy, rx, ry, angle), soft)


def blob(x: Field, y: Field, cx: float, cy: float, radius: float) -> Field:
    """Return a Gaussian of that standard deviation with a peak of 1."""
    r2 = np.float32(1 / (2 * radius * radius))
    return np.exp(-((x - np.float32(cx)) ** 2 + (y - np.float32(cy)) ** 2) * r2)


@lru_cache(maxsize=256)
def _spline_matrix(size: int, cells: int) -> Field:
    """Return the (size, cells + 3) matrix that interpolates a coarse axis with uniform cubic B-splines."""
    position = (np.arange(size) + 0.5) / size * cells
    index = np.minimum(position.astype(int), cells - 1)
    t = position - index
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
    matrix = np.zeros((size, cells + 3), np.float32)
    for k in range(4):
        matrix[np.arange(size), index + k] = weights[:, k]
    return matrix


def noise(rng: Rng, size: int, cells: int | tuple[int, int]) -> Field:
    """Return smooth noise of zero mean and about unit variance.

    Args:
        rng: Where the values are drawn.
        size: Side of the image, in pixels.
        cells: Lattice cells across the image, or down and across; the more, the finer.
    """
    down, across = (cells, cells) if isinstance(cells, int) else cells
    lattice = rng.standard_normal((down + 3, across + 3), dtype=np.float32)
    field: Field = _spline_matrix(size, down) @ lattice @ _spline_matrix(size, across).T
    return field / np.float32(_SPLINE_STD**2)


def fractal(rng: Rng, size: int, cells: int, octaves: int = 3) -> Field:
    """Return noise summed over octaves of half the amplitude each, of about unit variance."""
    total = sum(noise(rng, size, cells * 2**k) * np.float32(0.5**k) for k in range(octaves))
    return np.asarray(total, np.float32) / np.float32(np.sqrt(sum(0.25**k for k in range(octaves))))


def profile(rng: Rng, size: int, cells: int) -> Field:
    """Return a smooth random curve along one axis, (size,), of zero mean and about unit variance."""
    curve: Field = _spline_matrix(size, cells) @ rng.standard_normal(cells + 3, dtype=np.float32)
    return curve / np.float32(_SPLINE_STD)


def grain(rng: Rng, size: int, softness: float = 0.0) -> Field:
    """Return pixel noise of unit variance, blurred by `softness` pixels."""
    field = rng.standard_normal((size, size), dtype=np.float32)
    if softness:
        field = gaussian_filter(field, softness)
        field /= field.std()
    return field


def speckle(rng: Rng, size: int, down: float, across: float) -> Field:
    """Return fully developed speckle: a Rayleigh amplitude of mean 1, correlated over so many pixels each way."""
    parts = [gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), (down, across)) for _ in range(2)]
    amplitude = np.hypot(parts[0], parts[1])
    return amplitude / amplitude.mean()


class Stroke(NamedTuple):
    """A polyline of points (n, 2), with its width at the start, its value in [0, 1], and its width at the end."""

    points: NDArray[np.float64]
    width: float
    value: float = 1.0
    end_width: float | None = None

    def outline(self) -> NDArray[np.float64]:
        """Return the polygon (2n, 2) that the stroke covers."""
        p = self.points
        along = np.concatenate([p[1:2] - p[:1], p[2:] - p[:-2], p[-1:] - p[-2:-1]])
        end = self.width if self.end_width is None else self.end_width
        ramp = _bezier_weights(len(p))[:, 2] ** 0.5  # 0 to 1, evenly
        half = (self.width + (end - self.width) * ramp) / (2 * np.hypot(along[:, 0], along[:, 1]) + 1e-9)
        offset = along[:, ::-1] * (half[:, None] * (-1, 1))
        return np.concatenate([p + offset, (p - offset)[::-1]])


def strokes(size: int, lines: Iterable[Stroke]) -> Field:
    """Draw anti-aliased polylines, later ones over earlier ones; see `polygons`."""
    return polygons(size, ((line.outline(), line.value) for line in lines))


def polygons(size: int, shapes: Iterable[tuple[NDArray[np.float64], float]]) -> Field:
    """Fill anti-aliased polygons, later ones over earlier ones.

    Args:
        size: Side of the image, in pixels.
        shapes: Points (n, 2) as shares of the side, and a value in [0, 1], of each.

    Returns:
        (size, size) in [0, 1], 0 where nothing was drawn.
    """
    side = size * _SUPERSAMPLING
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    for points, value in shapes:
        pen.polygon((points * side).ravel().tolist(), fill=round(255 * value))
    return np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / np.float32(255)


@lru_cache(maxsize=8)
def _bezier_weights(n: int) -> NDArray[np.float64]:
    t = np.linspace(0, 1, n)
    return np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1)


def bezier(start: ArrayLike, control: ArrayLike, end: ArrayLike, n: int = 12) -> NDArray[np.float64]:
    """Return n points on a quadratic Bezier curve, (n, 2)."""
    points: NDArray[np.float64] = _bezier_weights(n) @ np.array([start, control, end], float)
    return points


def mix(under: Field, over: ArrayLike, mask: Field | float) -> Field:
    """Lay one field or colour over another where the mask is 1; works on (H, W) and, with (H, W, 1) masks, on RGB."""
    return under + (np.asarray(over, np.float32) - under) * mask


def to_pixels(image: Field) -> Pixels:
    """Turn intensities in [0, 1], (H, W) or (H, W, 3), into 8-bit RGB."""
    clipped = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(clipped if clipped.ndim == 3 else np.repeat(clipped[..., None], 3, axis=2))
