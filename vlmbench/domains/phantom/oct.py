"""Optical coherence tomography of the macula: retinal layers in cross-section, foveal pit, and three findings."""

from __future__ import annotations

import numpy as np

from vlmbench.domains.phantom.draw import View, ellipse, grain, mix, noise, profile, speckle, step, to_pixels
from vlmbench.domains.phantom.spec import Field, Finding, Modality, Params, Pixels, Rng, Scene, side_of, size_of

# Lower borders of the layers between the inner limiting membrane (0) and the pigment epithelium (1), away from the
# fovea, and the brightness of each: nerve fibres, ganglion cells, inner nuclear, outer plexiform, outer nuclear,
# ellipsoid zone, outer segments, pigment epithelium.
_LAYERS = (
    (0.10, 0.72),
    (0.38, 0.47),
    (0.52, 0.30),
    (0.60, 0.46),
    (0.82, 0.22),
    (0.87, 0.70),
    (0.91, 0.42),
    (1.0, 0.82),
)


def _anatomy(rng: Rng, age: float, sex: str) -> dict[str, float]:
    return {
        "thickness": rng.normal(0.27, 0.016) - 0.0003 * (age - 60) + (0.006 if sex == "male" else 0.0),
        "pit": rng.uniform(0.45, 0.62),  # depth, as a share of the thickness
        "pit_width": rng.normal(0.115, 0.012),
        "curve": rng.normal(0.10, 0.05),
        "choroid": rng.normal(0.13, 0.03) - 0.0006 * (age - 60),
    }


def _view(rng: Rng, anatomy: Params) -> dict[str, float]:
    return {
        **anatomy,
        "fovea": rng.normal(0.5, 0.035),
        "level": rng.normal(0.62, 0.035),
        "tilt": rng.normal(0, 0.08),
        "gain": rng.uniform(0.8, 1.15),
        "noise": rng.uniform(0.7, 1.2),
    }


def _place(rng: Rng, name: str, params: Params) -> Finding:
    strength = rng.uniform(0, 1)
    x = float(np.clip(params["fovea"] + rng.normal(0, 0.17), 0.2, 0.8))
    radius = {"drusen": (0.14, 0.3), "macular oedema": (0.12, 0.26), "subretinal fluid": (0.11, 0.24)}[name]
    r = rng.uniform(*radius)
    third = (radius[1] - radius[0]) / 3
    place = "centre" if abs(x - 0.5) < 0.07 else "left half" if x < 0.5 else "right half"
    size = size_of(r, radius[0] + third, radius[1] - third)
    return Finding(name, x, params["level"], r, strength, place, side_of(x), size)


def _bumps(f: Finding, x: Field, rng: Rng) -> Field:
    """Return the height that drusen lift the pigment epithelium by, along x."""
    height = np.zeros_like(x)
    for _ in range(rng.integers(3, 6)):
        cx, width = f.x + f.radius * rng.uniform(-1, 1), rng.uniform(0.022, 0.045)
        tall = (0.016 + 0.036 * f.strength) * rng.uniform(0.6, 1)
        height = np.maximum(height, tall * np.exp(-(((x - cx) / width) ** 2)))
    return height


def _render(scene: Scene, rng: Rng, size: int) -> Pixels:
    p = scene.params
    x, y = View().grid(size)
    across = x[:1]  # every border is a curve along x, (1, size)
    off = across - np.float32(p["fovea"])
    floor = p["level"] + p["tilt"] * off + p["curve"] * off**2 + 0.004 * profile(rng, size, 4)[None]  # Bruch's membrane
    drusen, oedema, fluid = (scene.find(name) for name in ("drusen", "macular oedema", "subretinal fluid"))

    epithelium = floor - _bumps(drusen, across, rng) if drusen else floor
    lifted = epithelium
    if fluid:
        dome = np.clip(1 - ((across - np.float32(fluid.x)) / np.float32(fluid.radius)) ** 2, 0, None)
        lifted = epithelium - (0.025 + 0.075 * fluid.strength) * dome
    pit = p["pit"] * np.exp(-((off / np.float32(p["pit_width"])) ** 2))
    swelling = np.zeros_like(across)
    if oedema:
        swelling = (0.12 + 0.45 * oedema.strength) * np.exp(-(((across - oedema.x) / (1.1 * oedema.radius)) ** 2))
        pit = pit * (1 - 0.75 * oedema.strength * np.exp(-(((p["fovea"] - oedema.x) / oedema.radius) ** 2)))
    rim = 0.10 * np.exp(-(((np.abs(off) - 2.0 * p["pit_width"]) / 0.13) ** 2))
    thickness = p["thickness"] * (1 - pit + rim + swelling)

    image = np.full((size, size), 0.05, np.float32)
    outer = p["thickness"] * 0.40  # photoreceptors keep their thickness under the pit, the inner layers do not
    inner_top = lifted - thickness
    upper = 0.0
    for lower, brightness in _LAYERS:
        if upper < 0.6:
            top = inner_top + (thickness - outer) * (upper / 0.6)
        else:
            top = lifted - outer * (1 - (upper - 0.6) / 0.4)
        image = mix(image, brightness + 0.05 * noise(rng, size, (3, 9)), step(y - top, 0.006))
        upper = lower
    if fluid:
        image = mix(image, 0.07, step(y - lifted, 0.006))
    if drusen or fluid:  # the epithelium follows its own border, and drusen fill what lies below
        image = mix(image, 0.82, step(y - epithelium + 0.028, 0.006) * step(epithelium - y, 0.006))
        if drusen:
            image = mix(image, 0.5, step(y - epithelium, 0.006))
    if oedema:
        image = _cysts(image, oedema, inner_top, lifted - outer * 0.45, x, y, rng)
    depth = (y - floor) / np.float32(max(p["choroid"], 0.05))
    depth = np.maximum(depth, 0)
    choroid = 0.50 * np.exp(-depth / 1.5) + 0.11 * noise(rng, size, (14, 14)) * np.exp(-depth)
    image = mix(image, choroid, step(y - floor, 0.008))

    grains = speckle(rng, size, 0.4, 0.55) - 1
    image = image * (1 + np.float32(0.42 * p["noise"]) * grains)
    image += np.float32(0.022 * p["noise"]) * np.abs(grain(rng, size))
    vessels = np.clip(profile(rng, size, 30) - 1.5, 0, 1)[None]  # they cast shadows
    shadows = 1 - 0.35 * vessels * step(y - inner_top - 0.03, 0.02)
    return to_pixels(image * shadows * np.float32(p["gain"]))


def _cysts(image: Field, f: Finding, top: Field, bottom: Field, x: Field, y: Field, rng: Rng) -> Field:
    """Lay dark cystoid spaces into the inner layers, upright and side by side like petals."""
    for _ in range(rng.integers(3, 7)):
        cx = f.x + f.radius * rng.uniform(-0.8, 0.8)
        column = min(max(int(cx * x.shape[1]), 0), x.shape[1] - 1)
        upper, lower = float(top[0, column]), float(bottom[0, column])
        cy = upper + (lower - upper) * rng.uniform(0.45, 0.75)
        height = (lower - upper) * rng.uniform(0.14, 0.26) * (0.8 + 0.4 * f.strength)
        hole = ellipse(x, y, cx, cy, rng.uniform(0.018, 0.04) * (0.8 + 0.5 * f.strength), height, 0, 0.2)
        image = mix(image, 0.07, hole * (0.5 + 0.5 * f.strength))
    return image


MODALITY = Modality(
    name="oct",
    titles=("oct scan of the retina", "retinal oct image"),
    prevalence={"normal": 0.46, "macular oedema": 0.18, "drusen": 0.18, "subretinal fluid": 0.18},
    binary=("normal", "abnormal"),
    positive=frozenset({"macular oedema", "drusen", "subretinal fluid"}),
    ages=(64.0, 13.0),
    sex_ratio={"subretinal fluid": 0.85},
    anatomy=_anatomy,
    view=_view,
    place=_place,
    render=_render,
    co_occur=True,
)
