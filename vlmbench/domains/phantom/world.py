"""Phantom worlds: who the patients are, what each image shows, and the pixels of it on demand.

Every draw comes from a generator keyed by the world's seed, the modality, the patient and the image, so that an image
is the same whoever asks for it, in whatever order.
"""

from __future__ import annotations

import re
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from vlmbench.domains.base import ImageError
from vlmbench.domains.phantom import dermoscopy, fundus, histology, oct, radiograph, shapes, text, ultrasound
from vlmbench.domains.phantom.spec import NORMAL, Finding, Modality, Pixels, Question, Rng, Scene

WORLD_VERSION = 1  # raise it whenever the same seed would give other pixels or other words
WORLD = "shapes"
TABLE: dict[str, Modality] = {
    module.MODALITY.name: module.MODALITY for module in (radiograph, fundus, dermoscopy, histology, ultrasound, oct)
}
MODALITIES: tuple[str, ...] = tuple(TABLE)
_KEY = re.compile(r"([a-z]+)/([0-9]{6})/([0-3])")
_IMAGES = (0.3, 0.3, 0.25, 0.15)  # shares of patients with 1 to 4 images
_SAME = 0.75  # share of a patient's images that show what the patient usually has
_SHARE_OF_EACH = 0.17  # multi-label: prevalence of each finding
_CACHE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Patient:
    """What all images of one patient share; `usual` are the findings that most of them show."""

    age: float
    sex: str
    images: int
    anatomy: Mapping[str, float]
    usual: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class World:
    """One phantom world.

    Attributes:
        seed: Non-negative; everything follows from it.
        image_size: Side of the images, in pixels.
        several: Whether an image may show several findings; otherwise it shows at most one.
    """

    seed: int = 0
    image_size: int = 96
    several: bool = False

    def rng(self, modality: str, patient: int, image: int, stream: str) -> Rng:
        """Return the generator of one purpose (`stream`) of one image, or of the patient where `image` is -1."""
        return np.random.default_rng([self.seed, _code(modality), patient, image + 1, _code(stream)])

    def patient(self, modality: str, number: int) -> Patient:
        """Draw a patient."""
        rng = self.rng(modality, number, -1, "patient")
        images = 1 + int(rng.choice(len(_IMAGES), p=_IMAGES))
        if modality == WORLD:
            return Patient(0.0, "", images, {}, ())
        m = TABLE[modality]
        sex = "female" if rng.random() < 0.5 else "male"
        age = round(float(np.clip(rng.normal(*m.ages), 18, 95)), 1)
        return Patient(age, sex, images, m.anatomy(rng, age, sex), self._findings(m, rng, age, sex))

    def scene(self, modality: str, number: int, image: int, patient: Patient | None = None) -> Scene:
        """Draw what one image shows; `patient` saves drawing the patient again."""
        m = TABLE[modality]
        who = patient or self.patient(modality, number)
        rng = self.rng(modality, number, image, "scene")
        params = m.view(rng, who.anatomy)
        names = who.usual if rng.random() < _SAME else self._findings(m, rng, who.age, who.sex)
        findings: tuple[Finding, ...] = tuple(m.place(rng, name, params) for name in names)
        return Scene(modality, who.age, who.sex, params, findings)

    def shapes(self, number: int, image: int) -> shapes.ShapeScene:
        """Draw a scene of the world of shapes."""
        return shapes.draw_scene(self.rng(WORLD, number, -1, "scene"), self.rng(WORLD, number, image, "scene"))

    def render(self, modality: str, number: int, image: int) -> Pixels:
        """Draw one image as (size, size, 3) bytes."""
        rng = self.rng(modality, number, image, "pixels")
        if modality == WORLD:
            return shapes.render(self.shapes(number, image), rng, self.image_size)
        return TABLE[modality].render(self.scene(modality, number, image), rng, self.image_size)

    def caption(self, modality: str, number: int, image: int) -> str:
        """Write the caption of one image."""
        rng = self.rng(modality, number, image, "caption")
        if modality == WORLD:
            return shapes.caption(self.shapes(number, image), rng)
        return text.caption(TABLE[modality], self.scene(modality, number, image), rng)

    def questions(self, modality: str, number: int, image: int, count: int) -> list[Question]:
        """Write up to `count` questions about one image."""
        rng = self.rng(modality, number, image, "questions")
        if modality == WORLD:
            return shapes.questions(self.shapes(number, image), rng, count)
        return text.questions(TABLE[modality], self.scene(modality, number, image), rng, count)

    def _findings(self, m: Modality, rng: Rng, age: float, sex: str) -> tuple[str, ...]:
        """Draw findings: each gains a little with age, some are more frequent in one sex."""
        half = 0.5 if sex == "female" else -0.5
        gain = {
            name: float(np.exp(0.008 * (age - m.ages[0]))) * m.sex_ratio.get(name, 1.0) ** half for name in m.findings
        }
        if self.several:
            return tuple(name for name in m.findings if rng.random() < _SHARE_OF_EACH * gain[name])
        weights = np.array([share * gain.get(name, 1.0) for name, share in m.prevalence.items()])
        name = tuple(m.prevalence)[int(rng.choice(len(weights), p=weights / weights.sum()))]
        return () if name == NORMAL else (name,)


def _code(word: str) -> int:
    return zlib.crc32(word.encode())


@dataclass
class PhantomImages:
    """Renders images on demand and keeps the latest ones, up to 64 MiB."""

    world: World
    _cache: OrderedDict[str, Pixels] = field(default_factory=OrderedDict, repr=False, init=False)

    def load(self, key: str) -> Image.Image:
        """Return the image of a key such as `radiograph/000012/1` (modality, patient, image) as 8-bit RGB.

        Raises:
            ImageError: The key is malformed or names an image that the patient does not have.
        """
        pixels = self._cache.get(key)
        if pixels is None:
            pixels = self.world.render(*self._parse(key))
            self._cache[key] = pixels
            while len(self._cache) * pixels.nbytes > _CACHE_BYTES:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(key)
        return Image.fromarray(pixels)

    def _parse(self, key: str) -> tuple[str, int, int]:
        match = _KEY.fullmatch(key)
        if not match or match[1] not in (*MODALITIES, WORLD):
            raise ImageError(key, "not a phantom image; a key looks like radiograph/000012/1")
        modality, number, image = match[1], int(match[2]), int(match[3])
        if image >= self.world.patient(modality, number).images:
            raise ImageError(key, f"this patient has no image {image}")
        return modality, number, image

    def __getstate__(self) -> dict[str, Any]:
        return {"world": self.world, "_cache": OrderedDict()}  # a worker starts with an empty cache
