"""Retina photographs: a disc on black with optic disc and cup, macula, branching vessels, and three findings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlmbench.domains.phantom.draw import (
    Stroke,
    View,
    bezier,
    blob,
    ellipse,
    fractal,
    grain,
    mix,
    noise,
    radial,
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

_DISC = 0.11  # radius of the optic disc


def _anatomy(rng: Rng, age: float, sex: str) -> dict[str, float]:
    return {
        "red": rng.normal(0.74, 0.06) + (0.015 if sex == "female" else 0.0),
        "green": rng.normal(0.37, 0.045),
        "blue": rng.normal(0.14, 0.03),
        "yellow": 0.0012 * (age - 40),  # the lens yellows with age
        "cup": np.clip(rng.normal(0.42, 0.08), 0.25, 0.62),
        "disc": rng.normal(1.0, 0.06),
        "tessellation": rng.uniform(0.2, 1.0),
        "vessels": rng.integers(0, 2**31),
        "calibre": rng.normal(1.0, 0.1),
    }


def _view(rng: Rng, anatomy: Params) -> dict[str, float]:
    side = 1 if rng.random() < 0.5 else -1  # of the optic disc in the image: 1 in a right eye
    return {
        **anatomy,
        "side": side,
        "disc_x": 0.5 + side * rng.uniform(0.14, 0.22),
        "disc_y": rng.normal(0.5, 0.02),
        "angle": rng.normal(0, 0.06),
        "light_x": rng.uniform(0.35, 0.65),
        "light_y": rng.uniform(0.35, 0.65),
        "gain": rng.uniform(0.8, 1.12),
        "blur": rng.uniform(0.3, 0.8),
    }


def _place(rng: Rng, name: str, params: Params) -> Finding:
    strength = rng.uniform(0, 1)
    if name == "glaucoma":
        return Finding(name, params["disc_x"], params["disc_y"], _DISC, strength)
    if name == "exudate" and rng.random() < 0.4:
        x, y = _macula(params)
        return Finding(name, x, y, rng.uniform(0.08, 0.13), strength, "macula", side_of(x))
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.16, 0.29)
    x, y = 0.5 + reach * np.cos(angle), 0.5 + reach * np.sin(angle)
    radius = rng.uniform(0.09, 0.18)
    return Finding(name, x, y, radius, strength, f"{quadrant(x, y)} retina", side_of(x), size_of(radius, 0.12, 0.15))


def _macula(params: Params) -> tuple[float, float]:
    return params["disc_x"] - params["side"] * 0.31, params["disc_y"] + 0.02


def _vessels(params: Params) -> tuple[list[Stroke], list[Stroke]]:
    """Grow veins and arteries from the disc: two arcades around the macula, two nasal pairs, and their branches."""
    rng = np.random.default_rng(int(params["vessels"]))  # the tree belongs to the patient, mirrored in the other eye
    out, veins, arteries = -params["side"], list[Stroke](), list[Stroke]()
    origin = np.array([params["disc_x"], params["disc_y"]])
    for up in (-1, 1):
        for vein in (True, False):
            width = (0.021 if vein else 0.014) * params["calibre"]
            tree = veins if vein else arteries
            shift = rng.normal(0, 0.02, 2) + (0.02 if vein else -0.02)
            start = origin + np.array([out * 0.005, up * 0.015])
            arc = np.array([(out * (0.02 + shift[0]), up * (0.36 + shift[1])), (out * 0.68, up * (0.2 + shift[1]))])
            spray = np.array([(-out * 0.06, up * (0.13 + shift[0])), (-out * 0.3, up * (0.3 + shift[1]))])
            temporal = bezier(start, origin + arc[0], origin + arc[1], 16)
            nasal = bezier(start, origin + spray[0], origin + spray[1])
            for trunk, w, branches in ((temporal, width, 5), (nasal, 0.7 * width, 3)):
                tree.append(Stroke(_wiggle(rng, trunk), w, 1.0, 0.35 * w))
                for k in range(branches):
                    t = 0.15 + 0.75 * (k + rng.random()) / branches
                    _branch(rng, tree, trunk, t, 0.6 * w, 1 if k % 2 else -1, 2)
    return veins, arteries


def _wiggle(rng: Rng, points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points + np.concatenate([np.zeros((1, 2)), rng.normal(0, 0.004, (len(points) - 1, 2))])


def _branch(
    rng: Rng, tree: list[Stroke], trunk: NDArray[np.float64], t: float, width: float, turn: int, depth: int
) -> None:
    k = min(int(t * (len(trunk) - 1)), len(trunk) - 2)
    along = trunk[k + 1] - trunk[k]
    angle = np.arctan2(along[1], along[0]) + turn * rng.uniform(0.5, 0.9)
    length = rng.uniform(0.12, 0.2) * (0.6 if depth == 1 else 1.0)
    start = trunk[k]
    middle = start + 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    end = middle + 0.5 * length * np.array([np.cos(angle - turn * 0.5), np.sin(angle - turn * 0.5)])
    twig = _wiggle(rng, bezier(start, middle, end, 7))
    tree.append(Stroke(twig, width, 0.85, 0.5 * width))
    if depth > 1:
        _branch(rng, tree, twig, rng.uniform(0.3, 0.8), 0.6 * width, -turn, depth - 1)


def _render(scene: Scene, rng: Rng, size: int) -> Pixels:
    p = scene.params
    view = View(angle=p["angle"])
    x, y = view.grid(size)
    light = 1 - 0.75 * ((x - p["light_x"]) ** 2 + (y - p["light_y"]) ** 2) / np.float32(0.36)
    texture = 0.05 * p["tessellation"] * fractal(rng, size, 9) + 0.02 * noise(rng, size, 4)
    red = (p["red"] + 0.6 * texture) * light
    green = (p["green"] + texture) * light
    blue = (p["blue"] - p["yellow"] + 0.4 * texture) * light

    mx, my = _macula(p)
    macula = blob(x, y, mx, my, 0.055) * 0.32 + blob(x, y, mx, my, 0.02) * 0.2
    red, green, blue = red * (1 - 0.6 * macula), green * (1 - 1.1 * macula), blue * (1 - macula)
    rgb = np.stack([red, green, blue], -1).astype(np.float32)

    glaucoma = scene.find("glaucoma")
    radius = _DISC * p["disc"]
    disc = ellipse(x, y, p["disc_x"], p["disc_y"], radius * 0.93, radius, 0, 0.1)
    ratio = 0.58 + 0.28 * glaucoma.strength if glaucoma else p["cup"]
    cup = ellipse(x, y, p["disc_x"] - 0.006 * p["side"], p["disc_y"], radius * ratio * 0.92, radius * ratio, 0, 0.2)
    rgb = mix(rgb, (0.93, 0.62, 0.36), (disc * 0.85)[..., None])
    rgb = mix(rgb, (1.0, 0.9, 0.68), (cup * 0.85)[..., None])

    veins, arteries = ([s._replace(points=view.points(s.points)) for s in tree] for tree in _vessels(p))
    vein, artery = strokes(size, veins), strokes(size, arteries)
    rgb *= 1 - vein[..., None] * np.array([0.3, 0.58, 0.5], np.float32)
    rgb *= 1 - artery[..., None] * np.array([0.12, 0.38, 0.32], np.float32)

    for finding in scene.findings:
        if finding.name == "haemorrhage":
            mask = _blots(finding, x, y, rng) * (0.55 + 0.4 * finding.strength)
            rgb = mix(rgb, (0.38, 0.05, 0.03), mask[..., None])
        elif finding.name == "exudate":
            mask = _deposits(finding, x, y, rng) * (0.5 + 0.45 * finding.strength)
            rgb = mix(rgb, (0.98, 0.86, 0.42), mask[..., None])

    rgb = np.clip(rgb * np.float32(p["gain"]), 0, 1) ** np.float32(0.95)
    rgb += np.float32(0.012) * grain(rng, size, p["blur"])[..., None]
    aperture = step(0.478 - radial(*View().grid(size), 0.5, 0.5, 1, 1), 0.006)
    return to_pixels(rgb * aperture[..., None])


def _blots(finding: Finding, x: Field, y: Field, rng: Rng) -> Field:
    """Return dark blots with ragged edges, some of them drawn out like flames."""
    mask = np.zeros_like(x)
    for _ in range(rng.integers(4, 9)):
        cx, cy = finding.x + rng.normal(0, 0.5) * finding.radius, finding.y + rng.normal(0, 0.5) * finding.radius
        r = finding.radius * rng.uniform(0.2, 0.42)
        mask = np.maximum(mask, ellipse(x, y, cx, cy, r * rng.uniform(1, 1.7), r, rng.uniform(0, np.pi), 0.25))
    return mask * np.clip(0.9 + 0.15 * fractal(rng, x.shape[0], 14, 2), 0, 1)


def _deposits(finding: Finding, x: Field, y: Field, rng: Rng) -> Field:
    """Return bright deposits with sharp edges, in a ring or a cluster."""
    mask = np.zeros_like(x)
    ring = rng.random() < 0.5
    for _ in range(rng.integers(12, 22)):
        angle = rng.uniform(0, 2 * np.pi)
        reach = finding.radius * (rng.normal(0.85, 0.1) if ring else np.sqrt(rng.uniform(0, 0.8)))
        r = rng.uniform(0.011, 0.022)
        cx, cy = finding.x + reach * np.cos(angle), finding.y + reach * np.sin(angle)
        mask = np.maximum(mask, ellipse(x, y, cx, cy, r * 1.3, r, angle, 0.3))
    return mask


MODALITY = Modality(
    name="fundus",
    titles=("fundus photograph", "retinal photograph"),
    prevalence={"normal": 0.46, "glaucoma": 0.18, "haemorrhage": 0.18, "exudate": 0.18},
    binary=("normal", "abnormal"),
    positive=frozenset({"glaucoma", "haemorrhage", "exudate"}),
    ages=(58.0, 14.0),
    sex_ratio={"exudate": 0.85},
    anatomy=_anatomy,
    view=_view,
    place=_place,
    render=_render,
    co_occur=True,
)
