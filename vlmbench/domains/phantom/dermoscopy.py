"""Dermoscopic images of skin: nevus, keratosis, melanoma and basal cell carcinoma, with hairs and vignette."""

from __future__ import annotations

import numpy as np

from vlmbench.domains.phantom.draw import (
    Stroke,
    View,
    bezier,
    ellipse,
    fractal,
    grain,
    mix,
    noise,
    step,
    strokes,
    to_pixels,
)
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
        "tone": rng.uniform(0, 1),  # from fair and pink to tanned
        "pink": rng.uniform(-0.3, 1.6),
        "hairs": rng.gamma(1.2, 3.0 if sex == "male" else 1.8),
        "sun": np.clip((age - 30) / 60 + rng.normal(0, 0.2), 0, 1),  # damage by the sun: mottled skin
    }


def _view(rng: Rng, anatomy: Params) -> dict[str, float]:
    return {
        **anatomy,
        "gain": rng.uniform(0.88, 1.06),
        "warm": rng.normal(0, 0.02),
        "vignette": rng.uniform(0, 1),
        "hairs": anatomy["hairs"] * rng.uniform(0.3, 1.3),
        "gel": rng.uniform(0, 1),
    }


def _place(rng: Rng, name: str, params: Params) -> Finding:
    x, y = rng.uniform(0.33, 0.67, 2)
    radius = rng.uniform(0.16, 0.29) * (1.08 if name == "melanoma" else 1.0)
    return Finding(name, x, y, radius, rng.uniform(0, 1), quadrant(x, y), side_of(x), size_of(radius, 0.2, 0.25))


def _outline(finding: Finding, x: Field, y: Field, rng: Rng, ragged: float) -> Field:
    """Return 1 at the centre of the lesion, 0 on its border and less outside; harmonics make the border ragged."""
    dx, dy = x - np.float32(finding.x), y - np.float32(finding.y)
    theta = np.arctan2(dy, dx)
    turn = rng.uniform(0, np.pi)
    border = 1 + 0.14 * np.cos(2 * (theta - turn))
    for k in range(3, 8):
        border = border + ragged * rng.normal(0, 0.55) / np.sqrt(k) * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
    return 1 - np.hypot(dx, dy) / (np.float32(finding.radius) * np.maximum(border, 0.45)).astype(np.float32)


def _network(x: Field, y: Field, rng: Rng, size: int) -> Field:
    """Return a honeycomb in [0, 1], bright on the lines: three plane waves at 60 degrees, gently bent."""
    bend_x, bend_y = 0.03 * fractal(rng, size, 5), 0.03 * fractal(rng, size, 5)
    turn, pitch = rng.uniform(0, np.pi), rng.uniform(15, 22)
    waves = sum(
        np.cos(np.float32(2 * np.pi * pitch) * ((x + bend_x) * np.cos(a) + (y + bend_y) * np.sin(a)).astype(np.float32))
        for a in (turn, turn + np.pi / 3, turn + 2 * np.pi / 3)
    )
    return step(np.asarray(-waves, np.float32), 0.8)


def _skin(p: Params, rng: Rng, size: int) -> Field:
    fair, tan = np.array([0.94, 0.74, 0.71]), np.array([0.80, 0.58, 0.46])
    base = fair + (tan - fair) * p["tone"] + np.array([0.0, -0.035, -0.02]) * p["pink"]
    mottle = 0.018 * noise(rng, size, 4) + 0.012 * (1 + p["sun"]) * fractal(rng, size, 11)
    blush = 0.013 * noise(rng, size, 6)
    skin = base.astype(np.float32) + mottle[..., None] * np.array([0.6, 1.0, 1.0], np.float32)
    skin += blush[..., None] * np.array([0.3, -0.7, -0.7], np.float32)
    return np.asarray(skin, np.float32)


def _pigment(rng: Rng, dark: float) -> np.ndarray:
    """Return a brown between light tan (0) and near black (1)."""
    light, deep = np.array([0.68, 0.39, 0.27]), np.array([0.21, 0.11, 0.09])
    return np.asarray(light + (deep - light) * dark + rng.normal(0, 0.015, 3), np.float32)


def _nevus(rgb: Field, f: Finding, x: Field, y: Field, rng: Rng, size: int) -> Field:
    inside = _outline(f, x, y, rng, 0.05 + 0.07 * (1 - f.strength))
    colour = _pigment(rng, rng.uniform(0.0, 0.75))
    mask = step(inside + 0.09 * fractal(rng, size, 9), rng.uniform(0.1, 0.3))
    body = colour * (1 + 0.10 * fractal(rng, size, 7))[..., None]
    rgb = mix(rgb, body, (mask * rng.uniform(0.6, 0.9))[..., None])
    patchy = step(0.4 + noise(rng, size, 5), 0.8)  # the network is clear in places and fades in others
    rgb = rgb * (1 - 0.32 * rng.uniform(0.2, 1) * (mask * patchy * _network(x, y, rng, size))[..., None])
    return rgb * (1 - rng.uniform(0, 0.35) * step(inside - 0.5 + 0.1 * noise(rng, size, 6), 0.3)[..., None])


def _melanoma(rgb: Field, f: Finding, x: Field, y: Field, rng: Rng, size: int) -> Field:
    inside = _outline(f, x, y, rng, 0.10 + 0.16 * f.strength)
    colour = _pigment(rng, rng.uniform(0.2, 0.75))
    mask = step(inside + 0.07 * fractal(rng, size, 9), 0.07)
    body = colour * (1 + 0.12 * fractal(rng, size, 6))[..., None]
    rgb = mix(rgb, body, (mask * 0.85)[..., None])
    rgb = rgb * (1 - 0.3 * (mask * _network(x, y, rng, size) * step(noise(rng, size, 4), 0.5))[..., None])
    palette = ((0.12, 0.08, 0.09), (0.36, 0.38, 0.48), (0.62, 0.25, 0.22), (0.80, 0.70, 0.68), (0.45, 0.22, 0.10))
    for k in rng.permutation(5)[
        : rng.integers(2, 4)
    ]:  # several colours, off centre: black, blue-grey, red, white, brown
        angle, r = rng.uniform(0, 2 * np.pi), f.radius
        cx, cy = f.x + 0.5 * r * np.cos(angle), f.y + 0.5 * r * np.sin(angle)
        patch = ellipse(x, y, cx, cy, r * rng.uniform(0.3, 0.5), r * 0.35, angle, 0.4)
        patch = step(patch + 0.25 * fractal(rng, size, 8) - 0.5, 0.35) * mask
        rgb = mix(rgb, palette[k], (patch * (0.25 + 0.6 * f.strength))[..., None])
    return rgb


def _carcinoma(rgb: Field, f: Finding, x: Field, y: Field, rng: Rng, size: int) -> Field:
    inside = _outline(f, x, y, rng, 0.09)
    mask = step(inside + 0.05 * fractal(rng, size, 7), 0.18)
    pearl = np.array([0.80, 0.48, 0.47], np.float32) + rng.normal(0, 0.025, 3).astype(np.float32)
    rgb = mix(rgb, pearl * (1 + 0.05 * fractal(rng, size, 8))[..., None], (mask * (0.5 + 0.4 * f.strength))[..., None])
    lines: list[Stroke] = []
    for _ in range(rng.integers(3, 7)):  # arborising vessels
        angle = rng.uniform(0, 2 * np.pi)
        a = np.array([f.x, f.y]) + f.radius * np.array([np.cos(angle), np.sin(angle)])
        c = np.array([f.x, f.y]) + f.radius * rng.normal(0, 0.3, 2)
        trunk = bezier(a, (a + c) / 2 + rng.normal(0, 0.05, 2), c)
        lines.append(Stroke(trunk, 0.013, 0.9, 0.006))
        twig = trunk[5] + f.radius * rng.normal(0, 0.35, 2)
        bend = (trunk[5] + twig) / 2 + rng.normal(0, 0.03, 2)
        lines.append(Stroke(bezier(trunk[5], bend, twig, 6), 0.008, 0.8, 0.005))
    vessels = strokes(size, lines) * step(inside + 0.1, 0.1) * (0.35 + 0.5 * f.strength)
    rgb = mix(rgb, (0.70, 0.14, 0.18), vessels[..., None])
    for _ in range(rng.integers(1, 5)):  # blue-grey nests, now and then dark
        cx, cy = f.x + rng.normal(0, 0.4) * f.radius, f.y + rng.normal(0, 0.4) * f.radius
        r = f.radius * rng.uniform(0.12, 0.3)
        nest = ellipse(x, y, cx, cy, r * 1.4, r, rng.uniform(0, np.pi), 0.3) * mask
        rgb = mix(rgb, (0.36, 0.31, 0.38), (nest * rng.uniform(0.4, 0.85))[..., None])
    return rgb


def _keratosis(rgb: Field, f: Finding, x: Field, y: Field, rng: Rng, size: int) -> Field:
    inside = _outline(f, x, y, rng, 0.09)
    mask = step(inside, 0.05)  # stuck on: a sharp border
    colour = mix(_pigment(rng, rng.uniform(0.1, 0.7)), (0.62, 0.46, 0.40), 0.4)
    waxy = colour * (1 + 0.13 * fractal(rng, size, 13, 2))[..., None]
    rgb = mix(rgb, waxy, (mask * (0.6 + 0.3 * f.strength))[..., None])
    for _ in range(rng.integers(5, 14)):  # milia-like cysts are white, comedo-like openings dark
        angle, reach = rng.uniform(0, 2 * np.pi), f.radius * np.sqrt(rng.uniform(0, 0.6))
        r = rng.uniform(0.011, 0.022)
        dot = ellipse(x, y, f.x + reach * np.cos(angle), f.y + reach * np.sin(angle), r, r, 0, 0.4) * mask
        tint = (0.93, 0.85, 0.70) if rng.random() < 0.6 else (0.22, 0.13, 0.09)
        rgb = mix(rgb, tint, (dot * (0.4 + 0.45 * f.strength))[..., None])
    return rgb


_LESIONS = {"nevus": _nevus, "keratosis": _keratosis, "melanoma": _melanoma, "basal cell carcinoma": _carcinoma}


def _hairs(rng: Rng, size: int, n: int) -> Field:
    lines: list[Stroke] = []
    direction = rng.uniform(0, np.pi)
    for _ in range(n):
        angle = direction + rng.normal(0, 0.5)
        middle = rng.uniform(0, 1, 2)
        half = rng.uniform(0.2, 0.6) * np.array([np.cos(angle), np.sin(angle)])
        bow = middle + rng.normal(0, 0.12, 2)
        curve = bezier(middle - half, bow, middle + half)
        lines.append(Stroke(curve, rng.uniform(0.004, 0.008), rng.uniform(0.35, 0.8)))
    return strokes(size, lines)


def _render(scene: Scene, rng: Rng, size: int) -> Pixels:
    p = scene.params
    x, y = View().grid(size)
    rgb = _skin(p, rng, size)
    for finding in scene.findings:
        rgb = _LESIONS[finding.name](rgb, finding, x, y, rng, size)
    rgb = mix(rgb, (0.17, 0.11, 0.09), _hairs(rng, size, int(p["hairs"]))[..., None])
    if p["gel"] < 0.25:  # bubbles of immersion gel
        for _ in range(4):
            bx, by = rng.uniform(0.05, 0.95, 2)
            rgb = rgb + np.float32(0.12) * ellipse(x, y, bx, by, 0.02, 0.02, 0, 0.3)[..., None]
    r = np.hypot(x - np.float32(0.5), y - np.float32(0.5))
    rgb = rgb * (1 - np.float32(0.35 * p["vignette"]) * (r / 0.7)[..., None] ** 2)
    if p["vignette"] > 0.8:  # the rim of the dermoscope
        rgb = rgb * (1 - 0.95 * step(r - np.float32(0.66 - 0.4 * (p["vignette"] - 0.8)), 0.012)[..., None])
    rgb = rgb * (np.array([1 + p["warm"], 1, 1 - p["warm"]], np.float32) * np.float32(p["gain"]))
    return to_pixels(rgb + np.float32(0.012) * grain(rng, size, 0.4)[..., None])


MODALITY = Modality(
    name="dermoscopy",
    titles=("dermoscopy image", "dermoscopic image of skin"),
    prevalence={"nevus": 0.34, "keratosis": 0.18, "melanoma": 0.26, "basal cell carcinoma": 0.22},
    binary=("benign", "malignant"),
    positive=frozenset({"melanoma", "basal cell carcinoma"}),
    ages=(54.0, 17.0),
    sex_ratio={"melanoma": 0.85, "basal cell carcinoma": 0.85},
    anatomy=_anatomy,
    view=_view,
    place=_place,
    render=_render,
)
