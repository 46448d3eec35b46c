"""Other images in the place of those that are asked about: what a model scores with them needs no picture.

* `blank`: a grey square. What is left is the question, and the model's own leaning.
* `shuffled`: an image of another group (a patient) of the same split, so that images are as they are in this domain,
  and each is of somebody else. Every image is shown as often as it is without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from vlmbench.domains.base import SPLITS, DomainError, Example, ImageSource, StoredImages
from vlmbench.domains.corruption import CorruptedFiles, CorruptedImages

#: Side of the blank image in pixels, the same for all: their sizes would tell images apart.
SIDE = 224
GREY = (128, 128, 128)


@dataclass(frozen=True)
class ReplacedImages(CorruptedImages):
    """Images of another source, each replaced by another.

    Attributes:
        instead: For `shuffled`, the key of the image that is shown for each.
    """

    instead: Mapping[str, str] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """What is done, in one word that differs wherever the pixels do."""
        return self.kind if self.kind == "blank" else f"{self.kind}-s{self.seed}"

    def load(self, key: str) -> Image.Image:
        """Return what is shown for an image, as 8-bit RGB.

        Raises:
            ImageError: The image that is shown is missing or cannot be decoded.
        """
        return Image.new("RGB", (SIDE, SIDE), GREY) if self.kind == "blank" else self.clean.load(self.instead[key])


@dataclass(frozen=True)
class ReplacedFiles(ReplacedImages, CorruptedFiles):
    """The same over a source of files; what is kept of an image is kept of the one that is shown."""

    clean: StoredImages

    def size(self, key: str) -> int:
        """Return the stored size in bytes of the image that is shown."""
        return 0 if self.kind == "blank" else self.clean.size(self.instead[key])

    def stamp(self, key: str) -> str:
        """Return the stamp of the image that is shown, with what is done."""
        return self.tag if self.kind == "blank" else f"{self.clean.stamp(self.instead[key])}|{self.tag}"

    def digest(self, key: str) -> bytes:
        """Return the SHA-256 of the digest of the image that is shown, and of what is done."""
        shown = b"" if self.kind == "blank" else self.clean.digest(self.instead[key])
        return hashlib.sha256(shown + f"|{self.tag}".encode()).digest()


def replaced(images: ImageSource, kind: str, examples: Sequence[Example], seed: int = 0) -> ReplacedImages:
    """Return a source that shows other images, a source of files where `images` is one.

    Args:
        images: The source.
        kind: `blank` or `shuffled`.
        examples: Of all splits; they say whose each image is.
        seed: Decides who is shown whose.

    Raises:
        DomainError: As `shuffled_keys`.
    """
    instead = shuffled_keys(examples, seed) if kind == "shuffled" else {}
    if isinstance(images, StoredImages):
        return ReplacedFiles(images, kind, 0, seed, instead=instead)
    return ReplacedImages(images, kind, 0, seed, instead=instead)


def shuffled_keys(examples: Sequence[Example], seed: int) -> dict[str, str]:
    """Return for each image one of another group of its split: a permutation without a fixed group.

    Groups are put into a random order, the images of each side by side, and all are turned by as many places as the
    largest group has: no image can meet its own group unless that has more than half of them.

    Raises:
        DomainError: One group has more than half of a split's images.
    """
    owner: dict[str, tuple[str, str]] = {}
    for example in examples:  # of an image in several groups or splits, the first counts
        owner.setdefault(example.image, (example.split, example.group))
    instead: dict[str, str] = {}
    for split in SPLITS:
        groups: dict[str, list[str]] = {}
        for key in sorted(key for key, (where, _) in owner.items() if where == split):
            groups.setdefault(owner[key][1], []).append(key)
        if not groups:
            continue
        turn, total = max(map(len, groups.values())), sum(map(len, groups.values()))
        if 2 * turn > total:
            largest = max(groups, key=lambda name: len(groups[name]))
            raise DomainError(
                f"domain.corruption=shuffled: {turn} of the {total} {split} images are of {largest!r}, so that not "
                "each can be another's. Take domain.corruption=blank, or more patients."
            )
        rng = np.random.default_rng([seed, SPLITS.index(split)])
        names = sorted(groups)
        rows = [str(key) for place in rng.permutation(len(names)) for key in rng.permutation(groups[names[place]])]
        instead |= dict(zip(rows, rows[turn:] + rows[:turn], strict=True))
    return instead
