"""Sections stained with haematoxylin and eosin: glands in a fibrous stroma, and three kinds of lesion.

Nuclei and fibres are drawn as amounts of the two dyes and become colour by the Beer-Lambert law, with the optical
densities that QuPath takes for haematoxylin and eosin (Bankhead et al., 2017, Sci Rep 7:16878).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlmbench.domains.phantom.draw import View, ellipse, fractal, grain, noise, polygons, step, to_pixels
from vlmbench.domains.phantom.spec import (
    Field,
    Finding,
    Modality,
    Params,
    Pixels,
    Rng,
    Scene,
    quadrant,
    side_of,
    size_of,
)

_HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
_EOSIN = np.array([0.22, 0.80, 0.56], np.float32)
_CIRCLE = np.stack([np.cos(np.arange(10) * 0.2 * np.pi), np.sin(np.arange(10) * 0.2 * np.pi)], 1)


def _anatomy(rng: Rng, age: float, sex: str) -> dict[str, float]:
    return {
        "haematoxylin": rng.uniform(0.6, 1.3),
        "eosin": rng.uniform(0.6, 1.45),
        "hue": rng.normal(0, 0.05),
        "gland": rng.uniform(0.10, 0.15) * (1.05 if sex == "female" else 1.0),
        "fibre": rng.uniform(0, np.pi),
        "cellularity": np.clip(rng.normal(1.25, 0.45) - 0.004 * (age - 55), 0.5, 2.4),
    }


def _view(rng: Rng, anatomy: Params) -> dict[str, float]:
    return {
        **anatomy,
        "glands": float(rng.integers(2, 9)),
        "fibre": anatomy["fibre"] + rng.normal(0, 0.4),
        "thickness": rng.uniform(0.8, 1.25),
        "blur": rng.uniform(0.2, 0.6),
    }


def _place(rng: Rng, name: str, params: Params) -> Finding:
    x, y = rng.uniform(0.2, 0.8, 2)
    radius = rng.uniform(0.2, 0.4)
    return Finding(name, x, y, radius, rng.uniform(0, 1), quadrant(x, y), side_of(x), size_of(radius, 0.27, 0.33))


class _Nuclei:
    """Nuclei to be drawn: collected a batch at a time, outlined all at once."""

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.rows: list[NDArray[np.float64]] = []

    def add(
        self,
        centres: NDArray[np.float64],
        radius: float | NDArray[np.float64],
        stretch: float | NDArray[np.float64],
        angle: float | NDArray[np.float64],
        density: float,
        spread: float,
    ) -> None:
        """Add nuclei at centres (n, 2), of a mean dye density and its spread from one to the next."""
        n = len(centres)
        columns = (radius, stretch, angle, np.clip(self.rng.normal(density, spread, n), 0, 1))
        self.rows.append(np.column_stack([centres, *(np.broadcast_to(c, n) for c in columns)]))

    def draw(self, size: int) -> Field:
        """Return the amount of haematoxylin, (size, size) in [0, 1]."""
        x, y, radius, stretch, angle, density = np.concatenate(self.rows).T
        lobes = _CIRCLE * (1 + self.rng.normal(0, 0.07, (len(x), len(_CIRCLE), 1)))
        along = lobes[..., 0] * (radius * np.sqrt(stretch))[:, None]
        across = lobes[..., 1] * (radius / np.sqrt(stretch))[:, None]
        c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
        outlines = np.stack([c * along - s * across + x[:, None], s * along + c * across + y[:, None]], -1)
        return polygons(size, zip(outlines, density, strict=True))


def _lattice(rng: Rng, pitch: float) -> NDArray[np.float64]:
    """Return jittered lattice points over the image, (n, 2), about `pitch` apart: crowded, yet seldom overlapping."""
    axis = np.arange(-pitch / 2, 1 + pitch, pitch)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    return points + rng.uniform(-0.38, 0.38, points.shape) * pitch


def _inside(points: NDArray[np.float64], finding: Finding, rng: Rng) -> NDArray[np.bool_]:
    reach = np.hypot(points[:, 0] - finding.x, points[:, 1] - finding.y) / finding.radius
    return np.asarray(reach + rng.normal(0, 0.12, len(points)) < 1)


def _outside(points: NDArray[np.float64], glands: NDArray[np.float64]) -> NDArray[np.bool_]:
    apart = np.hypot(points[:, :1] - glands[:, 0], points[:, 1:] - glands[:, 1]) > glands[:, 2] + 0.01
    return np.asarray(apart.all(axis=1))


def _glands(rng: Rng, p: Params, avoid: Finding | None, nuclei: _Nuclei) -> NDArray[np.float64]:
    """Return glands, rows of x, y, radius and radius of the lumen; line them with nuclei at the base of the cells."""
    glands = np.empty((0, 4))
    for x, y, spread, lumen in rng.uniform((0.02, 0.02, 0.8, 0.3), (0.98, 0.98, 1.25, 0.5), (40, 4)):
        r = p["gland"] * spread
        crowded = (np.hypot(x - glands[:, 0], y - glands[:, 1]) < r + glands[:, 2] + 0.03).any()
        if crowded or (avoid and np.hypot(x - avoid.x, y - avoid.y) < avoid.radius + 0.6 * r):
            continue
        glands = np.vstack([glands, (x, y, r, r * lumen)])
        count = int(2 * np.pi * r / 0.04)
        a = 2 * np.pi * (np.arange(count) + rng.uniform(-0.2, 0.2, count)) / count
        reach = r * rng.normal(0.84, 0.03, count)
        centres = np.stack([x + reach * np.cos(a), y + reach * np.sin(a)], 1)
        nuclei.add(centres, rng.normal(0.0165, 0.001, count), 1.45, a, 0.62, 0.08)
        if len(glands) >= p["glands"]:
            break
    return glands


def _stroma(rng: Rng, p: Params, glands: NDArray[np.float64], spare: Finding | None, nuclei: _Nuclei) -> None:
    """Scatter fibroblasts along the fibres, outside the glands and outside what replaces the stroma."""
    points = _lattice(rng, 0.085 / np.sqrt(p["cellularity"]))
    points = points[rng.random(len(points)) < 0.75]
    keep = _outside(points, glands)
    if spare:
        keep &= np.hypot(points[:, 0] - spare.x, points[:, 1] - spare.y) > 0.95 * spare.radius
    n = int(keep.sum())
    radius, stretch = rng.normal(0.0135, 0.001, n), rng.uniform(1.6, 3.2, n)
    nuclei.add(points[keep], radius, stretch, p["fibre"] + rng.normal(0, 0.35, n), 0.6, 0.1)


def _lesion(rng: Rng, f: Finding, p: Params, glands: NDArray[np.float64], nuclei: _Nuclei) -> None:
    """Add the cells of a lesion."""
    pitch = {"tumour": 0.064 - 0.008 * f.strength, "inflammation": 0.044 - 0.006 * f.strength, "fibrosis": 0.11}[f.name]
    points = _lattice(rng, pitch)
    points = points[_inside(points, f, rng) & _outside(points, glands)]
    n = len(points)
    if f.name == "tumour":  # crowded, large, dark, each one different
        size = rng.lognormal(np.log(0.0155 + 0.007 * f.strength), 0.15 + 0.15 * f.strength, n)
        nuclei.add(points, np.clip(size, 0.01, 0.04), rng.uniform(1, 1.7, n), rng.uniform(0, np.pi, n), 0.54, 0.14)
    elif f.name == "inflammation":  # small, round, dark lymphocytes
        points = points[rng.random(n) < 0.65 + 0.3 * f.strength]
        nuclei.add(points, rng.normal(0.0125, 0.0008, len(points)), 1.05, 0.0, 0.75, 0.07)
    else:  # a few thin fibrocytes among the collagen
        nuclei.add(points, 0.011, 3.5, p["fibre"] + rng.normal(0, 0.25, n), 0.65, 0.08)


def _waves(x: Field, y: Field, rng: Rng, size: int, angle: float, pitch: float) -> Field:
    """Return wavy fibres along `angle`, in [0, 1]."""
    across = -x * np.float32(np.sin(angle)) + y * np.float32(np.cos(angle)) + np.float32(0.05) * fractal(rng, size, 4)
    return np.float32(0.5) + np.float32(0.5) * np.sin(np.float32(2 * np.pi * pitch) * across + noise(rng, size, 8))


def _render(scene: Scene, rng: Rng, size: int) -> Pixels:
    p = scene.params
    x, y = View().grid(size)
    lesion = scene.findings[0] if scene.findings else None

    fibres = _waves(x, y, rng, size, p["fibre"], 13)
    eosin = 0.36 + 0.13 * fibres + 0.08 * fractal(rng, size, 6)
    gaps = step(noise(rng, size, 7) - 1.25, 0.25)
    eosin = eosin * (1 - 0.75 * gaps)
    haem = np.full_like(eosin, 0.05)

    nuclei = _Nuclei(rng)
    spare = lesion if lesion and lesion.name != "inflammation" else None
    glands = _glands(rng, p, spare, nuclei)
    for gx, gy, r, lumen in glands:
        cell = ellipse(x, y, gx, gy, r, r, 0, 0.06)
        hole = ellipse(x, y, gx, gy, lumen, lumen, 0, 0.15)
        eosin = eosin * (1 - cell) + cell * (0.34 * (1 - hole) + 0.02)
        haem = haem * (1 - cell) + cell * (0.13 * (1 - hole))
    _stroma(rng, p, glands, spare, nuclei)
    if lesion:
        region = step(1.05 - np.hypot(x - lesion.x, y - lesion.y).astype(np.float32) / lesion.radius, 0.12)
        if lesion.name == "tumour":
            eosin = eosin * (1 - region) + region * (0.30 + 0.05 * fractal(rng, size, 9))
            haem = haem + region * (0.02 + 0.05 * lesion.strength)
        elif lesion.name == "fibrosis":
            dense = _waves(x, y, rng, size, p["fibre"], 9)
            eosin = eosin * (1 - region) + region * (0.48 + (0.24 + 0.26 * lesion.strength) * dense)
        _lesion(rng, lesion, p, glands, nuclei)

    haem = np.maximum(haem, nuclei.draw(size) * (1 + 0.12 * noise(rng, size, 40)) * 1.25)
    haem = haem * np.float32(p["haematoxylin"] * p["thickness"])
    eosin = eosin * np.float32(p["eosin"] * p["thickness"])
    tint = _HAEMATOXYLIN + np.array([p["hue"], -p["hue"], 0], np.float32)
    rgb = np.exp(-(haem[..., None] * tint * 1.5 + eosin[..., None] * _EOSIN))
    rgb = rgb * np.array([0.97, 0.95, 0.97], np.float32) + np.float32(0.012) * grain(rng, size, p["blur"])[..., None]
    return to_pixels(rgb)


MODALITY = Modality(
    name="histology",
    titles=("histology slide", "microscopic section of tissue"),
    prevalence={"normal": 0.26, "inflammation": 0.17, "fibrosis": 0.15, "tumour": 0.42},
    binary=("benign", "malignant"),
    positive=frozenset({"tumour"}),
    ages=(60.0, 14.0),
    sex_ratio={"tumour": 0.9},
    anatomy=_anatomy,
    view=_view,
    place=_place,
    render=_render,
)
