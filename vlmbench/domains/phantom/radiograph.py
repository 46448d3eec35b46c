"""Frontal chest radiographs: lungs, ribs, heart, diaphragm, spine, and four findings that may co-occur.

Left and right are the patient's, as radiologists say them: the patient's left is at the right of the image.
"""

from __future__ import annotations

import numpy as np

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
from vlmbench.domains.phantom.spec import Field, Finding, Modality, Params, Pixels, Rng, Scene, size_of

_TOP = 0.10  # height of the lung apices


def _anatomy(rng: Rng, age: float, sex: str) -> dict[str, float]:
    female = sex == "female"
    return {
        "width": rng.normal(0.345 if female else 0.36, 0.016),  # half width of the thorax
        "base": rng.normal(0.79, 0.025),  # height of the costophrenic angles
        "heart": np.clip(rng.normal(0.97, 0.07), 0.8, 1.12) + 0.001 * (age - 50),
        "breast": rng.uniform(0.3, 1.0) if female else 0.0,
        "bone": np.clip(1.15 - 0.006 * (age - 40) + rng.normal(0, 0.12), 0.5, 1.5),
        "knob": 0.03 + 0.0003 * (age - 40),  # aortic arch, which widens with age
        "slope": rng.normal(0.11, 0.02),  # of the posterior ribs
        "fat": rng.uniform(0, 1),
    }


def _view(rng: Rng, anatomy: Params) -> dict[str, float]:
    return {
        **anatomy,
        "dx": rng.normal(0, 0.012),
        "dy": rng.normal(0, 0.015),
        "zoom": rng.normal(1.02, 0.035),
        "angle": rng.normal(0, 0.025),
        "gamma": rng.uniform(0.8, 1.3),
        "level": rng.normal(0, 0.035),
        "contrast": rng.uniform(0.85, 1.1),
        "marker": rng.uniform(0, 1),
    }


def _place(rng: Rng, name: str, params: Params) -> Finding:
    strength = rng.uniform(0, 1)
    if name == "cardiomegaly":
        return Finding(name, 0.55, 0.62, 0.2, strength)
    sign = -1 if rng.random() < 0.5 else 1  # in the image: -1 is the patient's right
    side = "right" if sign < 0 else "left"
    if name == "pleural effusion":
        height = rng.uniform(0.13, 0.36)
        x = 0.5 + sign * 0.6 * params["width"]
        size = size_of(height, 0.21, 0.27)
        return Finding(name, x, params["base"] - height / 2, height, strength, f"{side} lung base", side, size)
    small, large = (0.032, 0.055) if name == "nodule" else (0.085, 0.15)
    radius = rng.uniform(small, large)
    upper = rng.random() < 0.5
    y = rng.uniform(0.26, 0.40) if upper else rng.uniform(0.46, params["base"] - 0.17)
    x = 0.5 + sign * params["width"] * rng.uniform(0.48, 0.72)
    size = size_of(radius, small + 0.4 * (large - small), small + 0.6 * (large - small))
    return Finding(name, x, y, radius, strength, f"{'upper' if upper else 'lower'} {side} lung", side, size)


def _lung(x: Field, y: Field, sign: int, params: Params) -> tuple[Field, Field]:
    """Return the mask of one lung and the height of the dome of the diaphragm below it."""
    across = sign * (x - np.float32(0.5))
    width = np.float32(params["width"])
    base = params["base"] - (0.02 if sign < 0 else 0.0)  # the liver lifts the right dome
    t = np.clip((y - np.float32(_TOP)) / np.float32(base - _TOP), 0, 1.15)
    outer = width * np.sqrt(np.clip(1 - np.abs(1 - t) ** 2.3, 0, 1)) * (np.float32(0.9) + np.float32(0.1) * t)
    inner = np.float32(0.05) + np.float32(0.025) * t
    dome = np.float32(base - 0.075) + np.float32(0.12) * ((across - 0.42 * width) / (0.58 * width)) ** 2
    mask = step(outer - across, 0.012) * step(across - inner, 0.015) * step(dome - y, 0.012)
    return mask * (y > _TOP), dome


def _bones(size: int, view: View, params: Params) -> Field:
    """Draw posterior and anterior ribs and the clavicles, brightest at their edges."""
    width, slope = params["width"], params["slope"]
    wide: list[Stroke] = []
    inner: list[Stroke] = []
    for sign in (-1, 1):
        for k in range(9):
            y = 0.105 + 0.077 * k
            t = np.clip((y + 0.05 - _TOP) / (params["base"] - _TOP), 0.05, 1)
            reach = width * np.sqrt(1 - (1 - t) ** 2.3) + 0.015
            bow, end = (0.5 + sign * reach * 0.65, y - 0.035), (0.5 + sign * reach, y + slope)
            posterior = view.points(bezier((0.5 + sign * 0.045, y), bow, end))
            wide.append(Stroke(posterior, 0.026, 0.62))
            inner.append(Stroke(posterior, 0.012, 0.62))
            if 1 < k < 8:
                front = bezier(
                    (0.5 + sign * reach, y + slope), (0.5 + sign * reach * 0.9, y + 0.17), (0.5 + sign * 0.16, y + 0.19)
                )
                wide.insert(0, Stroke(view.points(front), 0.026, 0.3))
        clavicle = bezier((0.5 + sign * 0.035, 0.165), (0.5 + sign * 0.2, 0.15), (0.5 + sign * 0.37, 0.075))
        wide.append(Stroke(view.points(clavicle), 0.03, 1.0))
        inner.append(Stroke(view.points(clavicle), 0.012, 0.7))
    return strokes(size, wide) - np.float32(0.45) * strokes(size, inner)


def _hila(rng: Rng, size: int, view: View) -> Field:
    """Draw the vessels that branch from the hila into the lungs."""
    lines: list[Stroke] = []
    for sign in (-1, 1):
        root = np.array([0.5 + sign * 0.075, 0.43])
        for angle in rng.uniform(-1.1, 1.3, 7):
            length = rng.uniform(0.1, 0.22)
            end = root + length * np.array([sign * np.cos(angle), np.sin(angle)])
            middle = (root + end) / 2 + rng.normal(0, 0.015, 2)
            lines.append(Stroke(view.points(bezier(root, middle, end, 6)), 0.007, 0.5))
            lines.append(Stroke(view.points(bezier(root, (root + middle) / 2, middle, 4)), 0.013, 0.9))
    return strokes(size, lines)


def _heart(x: Field, y: Field, params: Params, enlarged: Finding | None) -> Field:
    scale = params["heart"] + (0.22 + 0.36 * enlarged.strength if enlarged else 0.0)
    cx, cy = 0.5 + 0.055 * scale, 0.655 - 0.02 * (scale - 1)
    ventricle = ellipse(x, y, cx, cy, 0.185 * scale, 0.125 * scale**0.6, 0.62, 0.07)
    atrium = ellipse(x, y, 0.5 - 0.035 * scale, 0.62, 0.085 * scale, 0.135, 0, 0.08)
    great = ellipse(x, y, 0.51, 0.38, 0.075, 0.26, 0, 0.15)
    knob = ellipse(x, y, 0.545, 0.32, params["knob"] + 0.01, 0.045, 0, 0.2)
    return np.maximum(np.maximum(ventricle, atrium), np.maximum(great, knob))


def _render(scene: Scene, rng: Rng, size: int) -> Pixels:
    p = scene.params
    view = View(p["dx"], p["dy"], p["zoom"], p["angle"])
    x, y = view.grid(size)
    u = x - np.float32(0.5)

    shoulder = 0.10 + 0.41 * step(y - 0.10 - 0.12 * np.abs(u), 0.035) - 0.045 * step(y - 0.4, 0.12) + 0.03 * p["fat"]
    body = step(shoulder - np.abs(u), 0.012)
    film = body * (0.56 + 0.07 * y) + np.float32(0.012) * noise(rng, size, 5)

    opacity = np.zeros_like(film)  # how much of the lung's transparency is taken by findings
    lungs = np.zeros_like(film)
    below = np.zeros_like(film)
    for sign in (-1, 1):
        mask, dome = _lung(x, y, sign, p)
        half = step(sign * u, 0.02)
        lungs = np.maximum(lungs, mask)
        below += half * step(y - dome, 0.012)
        for finding in scene.findings:
            if sign * (finding.x - 0.5) < 0 or finding.name == "cardiomegaly":
                continue
            opacity = np.maximum(opacity, mask * _opacity(finding, x, y, sign, p, rng, size))
    heart = _heart(x, y, p, scene.find("cardiomegaly"))

    film = mix(film, np.float32(0.14) + np.float32(0.03) * fractal(rng, size, 6), lungs * 0.97)
    film += np.float32(0.12) * lungs * _hila(rng, size, view)
    film += np.float32(0.10) * lungs * (blob(x, y, 0.41, 0.45, 0.035) + blob(x, y, 0.595, 0.43, 0.035))
    film = mix(film, 0.70, body * below * 0.75)
    film = mix(film, 0.66, heart * 0.88)
    film += np.float32(0.12) * body * np.exp(-((u / 0.045) ** 2)) * (1 + 0.25 * np.sin(y * np.float32(2 * np.pi * 17)))
    film -= np.float32(0.16) * ellipse(x, y, 0.495, 0.2, 0.018, 0.19, 0, 0.2)  # trachea
    film -= np.float32(0.14) * below * ellipse(x, y, 0.66, 0.78, 0.055, 0.03, 0, 0.3) * (p["marker"] > 0.6)  # stomach
    bones = _bones(size, view, p)
    film += np.float32(0.16 * p["bone"]) * bones * body * (1 - np.float32(0.6) * heart) * (1 - np.float32(0.75) * below)
    film = mix(film, 0.62, opacity)
    for sign in (-1, 1):
        film += np.float32(0.07 * p["breast"]) * ellipse(x, y, 0.5 + sign * 0.24, 0.62, 0.15, 0.13, 0, 0.2)

    film = np.clip(film * p["contrast"] + p["level"], 0, 1.2) ** p["gamma"]
    film += np.float32(0.018) * grain(rng, size, 0.5)
    if p["marker"] < 0.5:  # the letter R of the technician
        left, top = 0.06, 0.05 + 0.12 * p["marker"]
        corners = [(0, 0.06), (0, 0), (0.03, 0), (0.03, 0.03), (0, 0.03), (0.035, 0.06)]
        letter = np.array(corners) + np.array([left, top])
        film = mix(film, 0.95, strokes(size, [Stroke(letter[k : k + 2], 0.011) for k in range(5)]))
    return to_pixels(film * 1.1)


def _opacity(finding: Finding, x: Field, y: Field, sign: int, params: Params, rng: Rng, size: int) -> Field:
    """Return how opaque a finding makes the lung, in [0, 1]."""
    if finding.name == "pleural effusion":  # a meniscus that climbs the chest wall
        lateral = np.clip(sign * (x - np.float32(0.5)) / np.float32(params["width"]), 0, 1)
        level = params["base"] + 0.02 - finding.radius * (0.55 + 0.45 * lateral**2)
        return step(y - level, 0.025) * np.float32(0.6 + 0.4 * finding.strength)
    if finding.name == "nodule":
        return ellipse(x, y, finding.x, finding.y, finding.radius, finding.radius * 0.93, 0.6, 0.2) * np.float32(
            0.4 + 0.5 * finding.strength
        )
    patch = (
        1.15
        - radial(x, y, finding.x, finding.y, finding.radius, 1.15 * finding.radius)
        + np.float32(0.28) * fractal(rng, size, 8)
    )
    return step(patch, 0.45) * np.float32(0.38 + 0.5 * finding.strength)


MODALITY = Modality(
    name="radiograph",
    titles=("chest radiograph", "frontal chest film"),
    prevalence={"normal": 0.46, "consolidation": 0.16, "pleural effusion": 0.13, "nodule": 0.12, "cardiomegaly": 0.13},
    binary=("normal", "abnormal"),
    positive=frozenset({"consolidation", "pleural effusion", "nodule", "cardiomegaly"}),
    ages=(56.0, 17.0),
    sex_ratio={"nodule": 0.85, "cardiomegaly": 1.1},
    anatomy=_anatomy,
    view=_view,
    place=_place,
    render=_render,
    co_occur=True,
)
