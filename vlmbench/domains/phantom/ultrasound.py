"""B-mode ultrasound of the breast: tissue layers in speckle, cysts, benign and malignant masses.

Images are formed in beam coordinates (across the beams, along the depth) and, for a curved probe, converted to a
sector. Brightness is log-compressed: speckle is added to it, not multiplied.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from vlmbench.domains.phantom.draw import View, fractal, grain, mix, noise, profile, speckle, step, to_pixels
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


def _anatomy(rng: Rng, age: float, sex: str) -> dict[str, float]:
    return {
        "fat": np.clip(rng.normal(0.17, 0.04) + 0.0012 * (age - 50), 0.08, 0.3) * (0.8 if sex == "male" else 1.0),
        "gland": rng.normal(0.44, 0.05) * (0.75 if sex == "male" else 1.0),
        "echo": np.clip(rng.normal(0.62, 0.05) - 0.0012 * (age - 50), 0.45, 0.75),
        "curved": float(rng.random() < 0.35),
    }


def _view(rng: Rng, anatomy: Params) -> dict[str, float]:
    return {
        **anatomy,
        "gain": rng.normal(0.0, 0.04),
        "range": rng.uniform(0.85, 1.15),
        "attenuation": rng.uniform(0.15, 0.4),
        "tilt": rng.normal(0, 0.06),
    }


def _place(rng: Rng, name: str, params: Params) -> Finding:
    x, y = rng.uniform(0.28, 0.72), rng.uniform(0.34, 0.6)
    radius = rng.uniform(0.10, 0.2)
    return Finding(name, x, y, radius, rng.uniform(0, 1), quadrant(x, y), side_of(x), size_of(radius, 0.13, 0.165))


def _streaks(rng: Rng, size: int, down: int, across: int) -> Field:
    """Return bright horizontal fibres in [0, 1]: ridges of noise that is stretched across the beams."""
    return np.exp(-np.abs(noise(rng, size, (down, across))) * np.float32(3))


def _tissue(x: Field, z: Field, p: Params, rng: Rng, size: int) -> Field:
    """Return brightness of skin, fat, glandular tissue, muscle and chest wall, from the probe down."""
    wave = p["tilt"] * (x - 0.5)

    def border(depth: float, swing: float, cells: int) -> Field:
        return np.asarray(depth + wave + swing * profile(rng, size, cells)[None, :], np.float32)

    skin, fat = border(0.05, 0.003, 3), border(0.05 + p["fat"], 0.022, 5)
    gland, muscle = border(0.05 + p["fat"] + p["gland"], 0.02, 4), border(0.2 + p["fat"] + p["gland"], 0.012, 3)
    image = 0.72 + 0.1 * noise(rng, size, (20, 3))  # skin
    lobules = 0.30 + 0.30 * _streaks(rng, size, 9, 5) + 0.05 * noise(rng, size, 8)
    image = mix(image, lobules, step(z - skin, 0.008))
    fibres = p["echo"] - 0.2 + 0.3 * _streaks(rng, size, 18, 3) + 0.07 * noise(rng, size, (9, 5))
    image = mix(image, fibres, step(z - fat, 0.012))
    image = mix(image, 0.30 + 0.26 * _streaks(rng, size, 24, 2), step(z - gland, 0.012))
    image = np.maximum(image, 0.62 * np.exp(-(((z - gland) / 0.009) ** 2)))  # fascia
    image = mix(image, 0.16 + 0.04 * noise(rng, size, 6), step(z - muscle, 0.012))
    return np.maximum(image, 0.68 * np.exp(-(((z - muscle) / 0.012) ** 2)))  # pleura


def _mass(image: Field, f: Finding, x: Field, z: Field, rng: Rng, size: int) -> Field:
    """Lay a lesion, and what it does to the beam below it, over the tissue."""
    r = f.radius
    dx, dz = x - np.float32(f.x), z - np.float32(f.y)
    theta = np.arctan2(dz, dx)
    malignant = f.name == "malignant mass"
    flat = rng.uniform(0.85, 1.2) + 0.15 * f.strength if malignant else rng.uniform(0.58, 0.9)  # height over width
    if f.name == "cyst":
        flat = rng.uniform(0.78, 1.0)
    ragged = 0.05 + 0.11 * f.strength if malignant else 0.03
    border = np.ones_like(x)
    for k in range(2, 10):
        border = border + np.float32(ragged * rng.normal(0, 0.75) / np.sqrt(k / 3)) * np.cos(
            k * theta + np.float32(rng.uniform(0, 2 * np.pi))
        )
    inside = 1 - np.hypot(dx, dz / np.float32(flat)) / (np.float32(r * 0.92 / np.sqrt(flat)) * np.maximum(border, 0.4))

    beam = np.exp(-((np.abs(dx) / np.float32(0.85 * r)) ** 4)) * step(dz - np.float32(0.6 * r), 0.04)
    if f.name == "cyst":
        image = image + np.float32(0.08 + 0.16 * f.strength) * beam * np.exp(-np.maximum(dz - r, 0) / np.float32(0.3))
        image = mix(image, 0.12 - 0.1 * f.strength, step(inside, 0.08))
        return image + np.float32(0.15) * np.exp(-((inside / np.float32(0.08)) ** 2)) * step(np.abs(dz) - 0.5 * r, 0.03)
    if malignant:
        image = image - np.float32(0.08 + 0.26 * f.strength) * beam
        core = 0.20 + 0.08 * (1 - f.strength) + 0.06 * fractal(rng, size, 9)
        halo = np.exp(-(((inside + np.float32(0.22)) / np.float32(0.2)) ** 2))
        image = image + np.float32(0.1 * f.strength) * halo
        return mix(image, core, step(inside + 0.06 * noise(rng, size, 14), 0.12))
    core = 0.22 + 0.12 * rng.random() + 0.03 * noise(rng, size, 8)
    image = mix(image, core, step(inside, 0.07))
    return image + np.float32(0.16) * np.exp(-((inside / np.float32(0.06)) ** 2))  # the capsule


def _sector(image: Field, size: int) -> Field:
    """Convert beam coordinates to the picture of a curved probe, black outside the sector."""
    x, y = View().grid(size)
    dx, dy = x - np.float32(0.5), y + np.float32(0.42)
    beam = (np.arctan2(dx, dy) / np.float32(0.66) + 1) / 2
    depth = (np.hypot(dx, dy) - np.float32(0.47)) / np.float32(0.93)
    picture: Field = map_coordinates(image, [depth * size - 0.5, beam * size - 0.5], order=1, mode="nearest")
    inside = step(np.minimum(np.minimum(beam, 1 - beam), np.minimum(depth, 1 - depth)), 0.006)
    return picture * inside


def _render(scene: Scene, rng: Rng, size: int) -> Pixels:
    p = scene.params
    x, z = View().grid(size)
    image = _tissue(x, z, p, rng, size)
    for finding in scene.findings:
        image = _mass(image, finding, x, z, rng, size)
    for _ in range(rng.integers(0, 3)):  # poor contact casts a shadow from the skin down
        depth, middle = rng.uniform(0.03, 0.12), rng.uniform(0, 1)
        image = image - np.float32(depth) * np.exp(-(((x - np.float32(middle)) / np.float32(0.06)) ** 2))
    image = image - np.float32(p["attenuation"]) * z**2
    loud = np.log10(np.maximum(speckle(rng, size, 0.5, 1.0), 0.18))
    image = image + np.float32(0.26) * loud + np.float32(0.04)
    image = (image - 0.5) * np.float32(p["range"]) + np.float32(0.47 + p["gain"])
    image = np.clip(image, 0, 1) + np.float32(0.008) * np.abs(grain(rng, size))
    return to_pixels(_sector(image, size) if p["curved"] else image)


MODALITY = Modality(
    name="ultrasound",
    titles=("breast ultrasound", "ultrasound image of the breast"),
    prevalence={"normal": 0.2, "cyst": 0.18, "solid benign mass": 0.22, "malignant mass": 0.4},
    binary=("benign", "malignant"),
    positive=frozenset({"malignant mass"}),
    ages=(52.0, 14.0),
    sex_ratio={"cyst": 1.2},
    anatomy=_anatomy,
    view=_view,
    place=_place,
    render=_render,
)
