"""What a phantom modality is made of: patients, scenes, findings, questions, and the table a renderer fills in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Field = NDArray[np.floating[Any]]  # one value a pixel, (H, W)
Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
Params = Mapping[str, float]

NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to be seen in an image.

    Attributes:
        name: As in `Modality.prevalence`.
        x: Centre, left to right in [0, 1], in the coordinates of the anatomy.
        y: Centre, top to bottom in [0, 1].
        radius: As a share of the image's side.
        strength: 0 (barely visible) to 1 (obvious).
        place: Where it is, as the text says it; empty where that says nothing.
        side: `left` or `right`, where it is clearly on one side, as the modality's readers say it.
        size: `small` or `large`, where it has a size worth asking for.
    """

    name: str
    x: float
    y: float
    radius: float
    strength: float
    place: str = ""
    side: str = ""
    size: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """The latent description of one image; everything that can be said of the image is read from here.

    Attributes:
        modality: Name of the modality.
        age: Of the patient, in years.
        sex: Of the patient, `female` or `male`.
        params: Anatomy of the patient and view of the image, by name.
        findings: What is to be seen; empty where the image is normal.
    """

    modality: str
    age: float
    sex: str
    params: Params
    findings: tuple[Finding, ...]

    def find(self, name: str) -> Finding | None:
        """Return the finding of that name, or None where the scene has none."""
        return next((finding for finding in self.findings if finding.name == name), None)

    @property
    def main(self) -> str:
        """Name of the first finding, or `normal`."""
        return self.findings[0].name if self.findings else NORMAL


class Question(NamedTuple):
    """A question about one image, with its reference answer and, where it is closed, the admissible answers."""

    question: str
    answer: str
    answer_type: Literal["open", "closed"]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Modality:
    """One imaging modality: its findings and how an image of it is drawn.

    Attributes:
        name: One word, as models declare their pre-training modalities.
        titles: Names of the kind of image, as a caption says them; the first one answers questions.
        prevalence: Share of images by main finding, `normal` included where the modality has it; sums to 1.
        binary: Names of the negative and of the positive class of the binary target.
        positive: Main findings that belong to the positive class.
        ages: Mean and standard deviation of the age, in years.
        sex_ratio: By finding, how many times as frequent it is in women as in men; 1 where it is not a key.
        anatomy: `(rng, age, sex)` to the parameters that all images of a patient share.
        view: `(rng, anatomy)` to the anatomy with the parameters of one image added.
        place: `(rng, finding's name, params)` to a finding somewhere in the image.
        render: `(scene, rng, size)` to the pixels.
        co_occur: Whether several findings can be drawn into one image, which the multi-label target needs.
    """

    name: str
    titles: tuple[str, ...]
    prevalence: Mapping[str, float]
    binary: tuple[str, str]
    positive: frozenset[str]
    ages: tuple[float, float]
    sex_ratio: Mapping[str, float]
    anatomy: Callable[[Rng, float, str], dict[str, float]]
    view: Callable[[Rng, Params], dict[str, float]]
    place: Callable[[Rng, str, Params], Finding]
    render: Callable[[Scene, Rng, int], Pixels]
    co_occur: bool = False

    @property
    def findings(self) -> tuple[str, ...]:
        """Names of the findings, without `normal`."""
        return tuple(name for name in self.prevalence if name != NORMAL)

    @property
    def has_normal(self) -> bool:
        """Whether an image of this modality can be without a finding."""
        return NORMAL in self.prevalence


def quadrant(x: float, y: float) -> str:
    """Return a place as a reader of the image says it: `upper left`, ..., or `centre`."""
    if abs(x - 0.5) < 0.08 and abs(y - 0.5) < 0.08:
        return "centre"
    return f"{'upper' if y < 0.5 else 'lower'} {'left' if x < 0.5 else 'right'}"


def side_of(x: float) -> str:
    """Return `left` or `right` as seen in the image, or nothing where `x` is too near the middle to tell."""
    return "left" if x < 0.43 else "right" if x > 0.57 else ""


def size_of(radius: float, small: float, large: float) -> str:
    """Return `small` up to one radius, `large` from another on, and nothing in between."""
    return "small" if radius <= small else "large" if radius >= large else ""
