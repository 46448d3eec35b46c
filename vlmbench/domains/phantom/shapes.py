"""The world a generalist is pre-trained on: coloured shapes and textures, with captions and questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmbench.domains.phantom.draw import View, fractal, grain, mix, polygons, step, to_pixels
from vlmbench.domains.phantom.spec import Field, Pixels, Question, Rng, quadrant, side_of, size_of
from vlmbench.domains.phantom.text import choose

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.12, 0.12),
    "orange": (0.95, 0.55, 0.10),
    "yellow": (0.95, 0.90, 0.20),
    "green": (0.15, 0.65, 0.20),
    "cyan": (0.20, 0.80, 0.85),
    "blue": (0.12, 0.25, 0.85),
    "purple": (0.50, 0.18, 0.65),
    "pink": (0.97, 0.60, 0.75),
    "brown": (0.45, 0.27, 0.12),
    "black": (0.05, 0.05, 0.05),
    "white": (0.97, 0.97, 0.97),
    "grey": (0.52, 0.52, 0.52),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "ellipse", "diamond")
FILLS = ("plain", "striped", "checkered", "dotted", "noisy")
GROUNDS = (*FILLS, "gradient")
_NUMBERS = ("no", "one", "two", "three", "four")


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape: what it is, its colour and fill, its centre, and its radius as a share of the image's side."""

    shape: str
    colour: str
    fill: str
    x: float
    y: float
    radius: float
    angle: float

    @property
    def size(self) -> str:
        """Return `small`, `large`, or nothing in between."""
        return size_of(self.radius, 0.13, 0.18)

    @property
    def name(self) -> str:
        """Return colour and shape."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class ShapeScene:
    """One to four shapes on a background of one colour and texture."""

    ground: str
    texture: str
    things: tuple[Thing, ...]


def draw_scene(patient: Rng, image: Rng) -> ShapeScene:
    """Draw a scene; the background belongs to the group, the shapes to the image."""
    ground, texture = _pick(patient, tuple(COLOURS)), _pick(patient, GROUNDS)
    kind = image.random()
    count = 1 if kind < 0.5 else 2 if kind < 0.75 else int(image.integers(2, 5))
    alike = kind >= 0.75  # several of the same; otherwise each thing is its own
    colours = [c for c in COLOURS if c != ground]
    centres: list[tuple[float, float]] = []
    largest = 0.26 if count == 1 else 0.2 if count == 2 else 0.155
    things: list[Thing] = []
    while len(things) < count:
        radius = image.uniform(0.09, largest)
        x, y = image.uniform(radius + 0.01, 0.99 - radius, 2)
        if any(np.hypot(x - a, y - b) < largest + radius for a, b in centres):
            continue
        centres.append((x, y))
        like = things[0] if things and alike else None
        shape = like.shape if like else _pick(image, SHAPES)
        colour = like.colour if like else _pick(image, tuple(colours))
        fill = like.fill if like else (_pick(image, FILLS) if image.random() < 0.4 else "plain")
        things.append(Thing(shape, colour, fill, x, y, radius, image.uniform(-0.25, 0.25)))
    return ShapeScene(ground, texture, tuple(things))


def _pick(rng: Rng, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _corners(n: int, inner: float = 1.0, turn: float = -np.pi / 2) -> NDArray[np.float64]:
    a = turn + np.arange(n) * 2 * np.pi / n
    r = np.where(np.arange(n) % 2, inner, 1.0)
    return np.stack([r * np.cos(a), r * np.sin(a)], 1)


_ARM = np.array([(-0.3, -0.3), (-0.3, -1.0), (0.3, -1.0)])
_CROSS = np.concatenate([_ARM @ np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))])
_OUTLINES = {
    "circle": _corners(40),
    "ring": _corners(40),
    "ellipse": _corners(40) * (1.0, 0.55),
    "square": _corners(4, turn=-np.pi / 4),
    "diamond": _corners(4) * (0.65, 1.0),
    "triangle": _corners(3),
    "star": _corners(10, 0.42),
    "cross": _CROSS,
}


def _mask(thing: Thing, size: int) -> Field:
    centre = np.array([thing.x, thing.y])
    c, s = np.cos(thing.angle), np.sin(thing.angle)
    turned = _OUTLINES[thing.shape] @ np.array([[c, s], [-s, c]])
    outline = turned * thing.radius + centre
    layers = [(outline, 1.0)]
    if thing.shape == "ring":
        layers.append((turned * thing.radius * 0.55 + centre, 0.0))
    return polygons(size, layers)


def _fill(kind: str, colour: str, x: Field, y: Field, rng: Rng, size: int) -> Field:
    """Return a surface of one colour and one texture, (size, size, 3)."""
    base = np.array(COLOURS[colour], np.float32) + rng.normal(0, 0.03, 3).astype(np.float32)
    contrast = np.where(base.mean() > 0.5, base * 0.45, base + (1 - base) * 0.5).astype(np.float32)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(8, 12)
    along = (np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)
    across = (-np.sin(angle) * x + np.cos(angle) * y).astype(np.float32)
    wave = np.float32(2 * np.pi * pitch)
    if kind == "striped":
        mask = step(np.sin(wave * along), 0.25)
    elif kind == "checkered":
        mask = step(np.sin(wave * 0.8 * along) * np.sin(wave * 0.8 * across), 0.12)
    elif kind == "dotted":
        mask = step(np.cos(wave * along) + np.cos(wave * across) - 0.9, 0.25)
    elif kind == "noisy":
        mask = np.clip(0.5 + 0.35 * fractal(rng, size, 16, 2), 0, 1)
    elif kind == "gradient":
        mask = np.clip(along - along.min(), 0, None) / np.ptp(along)
    else:
        mask = np.zeros_like(x)
    return mix(np.broadcast_to(base, (size, size, 3)), contrast, mask[..., None] * np.float32(0.85))


def render(scene: ShapeScene, rng: Rng, size: int) -> Pixels:
    """Draw a scene as (size, size, 3)."""
    x, y = View().grid(size)
    image = _fill(scene.texture, scene.ground, x, y, rng, size)
    for thing in scene.things:
        image = mix(image, _fill(thing.fill, thing.colour, x, y, rng, size), _mask(thing, size)[..., None])
    light = 1 + 0.12 * rng.normal() * (x - 0.5) + 0.12 * rng.normal() * (y - 0.5)
    return to_pixels(image * light[..., None] + np.float32(0.015) * grain(rng, size)[..., None])


def _ground(scene: ShapeScene) -> str:
    return f"{scene.texture} {scene.ground}"


def _say(thing: Thing, rng: Rng) -> str:
    words = [thing.name]
    if thing.fill != "plain":
        words.insert(0, thing.fill)
    if thing.size and rng.random() < 0.7:
        words.insert(0, thing.size)
    first = words[0]
    return f"{'an' if first[0] in 'aeiou' else 'a'} {' '.join(words)}"


def caption(scene: ShapeScene, rng: Rng) -> str:
    """Return one caption, in lower case and without punctuation, of varied wording."""
    first = scene.things[0]
    alike = len(scene.things) > 1 and all(thing.name == first.name for thing in scene.things)
    if alike:
        fill = "" if first.fill == "plain" else f"{first.fill} "
        seen = f"{_NUMBERS[len(scene.things)]} {fill}{first.colour} {plural(first.shape)}"
    else:
        seen = " and ".join(_say(thing, rng) for thing in scene.things)
        if len(scene.things) == 1 and rng.random() < 0.7:
            seen += f" in the {quadrant(first.x, first.y)}"
    if rng.random() < 0.65:
        seen += f" on a {_ground(scene)} background"
    return _pick(
        rng, (seen, f"a picture of {seen}", f"an image showing {seen}", f"there {'are' if alike else 'is'} {seen}")
    )


def plural(shape: str) -> str:
    """Return the plural of a shape's name."""
    return f"{shape}es" if shape == "cross" else f"{shape}s"


def questions(scene: ShapeScene, rng: Rng, count: int) -> list[Question]:
    """Return up to `count` different questions about one image; yes and no are about equally frequent."""
    first = scene.things[0]
    pool = [
        (3.0, _is_there(scene, rng)),
        (1.0, Question("How many shapes are there?", _NUMBERS[len(scene.things)], "open")),
        (0.6, Question("What is the texture of the background?", scene.texture, "open")),
        (0.6, Question("What colour is the background?", scene.ground, "open")),
    ]
    if len({thing.name for thing in scene.things}) == 1:
        pool += [
            (1.0, Question("What shape is seen?", first.shape, "open")),
            (1.0, Question(f"What colour is the {first.shape}?", first.colour, "open")),
            (0.5, Question(f"What is the texture of the {first.shape}?", first.fill, "open")),
        ]
    if len(scene.things) == 1:
        pool.append((0.7, Question(f"Where is the {first.shape}?", quadrant(first.x, first.y), "open")))
        if first.size:
            text = f"Is the {first.shape} small or large?"
            pool.append((0.7, Question(text, first.size, "closed", ("small", "large"))))
    if len({thing.shape for thing in scene.things}) == len(scene.things) and side_of(first.x):
        text = f"Is the {first.shape} on the left or the right?"
        pool.append((0.7, Question(text, side_of(first.x), "closed", ("left", "right"))))
    return choose(pool, rng, count)


def _is_there(scene: ShapeScene, rng: Rng) -> Question:
    """Ask for a shape of some colour; a wrong one differs in colour, in shape, or in both."""
    thing = scene.things[int(rng.integers(len(scene.things)))]
    names = {t.name for t in scene.things}
    colour, shape = thing.colour, thing.shape
    if rng.random() < 0.5:
        while f"{colour} {shape}" in names:
            change = rng.random()
            colour = _pick(rng, tuple(COLOURS)) if change < 0.6 else thing.colour
            shape = _pick(rng, SHAPES) if change > 0.4 else thing.shape
    article = "an" if colour[0] in "aeiou" else "a"
    answer = "yes" if f"{colour} {shape}" in names else "no"
    return Question(f"Is there {article} {colour} {shape}?", answer, "closed", ("yes", "no"))
