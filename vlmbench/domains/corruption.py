"""Images made worse in a known way, to see how far a tuned model holds: noise, blur, contrast, JPEG, light, resolution.

The constants are those of ImageNet-C (Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common
corruptions and perturbations", ICLR, arXiv 1903.12261), which are for images of 224 pixels. Medical images are larger,
and what is done to single pixels is gone when a model scales them down. So everything is sized by the shorter side:

* `noise`: Gaussian, on a grid of at most 224 points on the shorter side, each as large as its part of the image.
* `blur`: Gaussian, sigma in pixels of 224, times shorter side / 224.
* `jpeg`: compression of the image at no more than 224 on the shorter side; the difference that it makes is enlarged and
  added to the image, which keeps its own detail.
* `resolution`: the paper's pixelate: a share of 224, or of the shorter side where that is less, and back in squares.
* `contrast` towards the mean of each channel, and `brightness` in HSV, concern each pixel alone and are not sized.

Grey images stay grey. What comes out depends on the image's key, the seed, the kind and the severity alone.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vlmbench.domains.base import ImageSource, StoredImages

SIDE = 224
#: By kind, the constant of severities 1 to 5.
CONSTANTS: dict[str, tuple[float, ...]] = {
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation, of the range from black to white
    "blur": (1, 2, 3, 4, 6),  # sigma in pixels
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # what is left of it
    "jpeg": (25, 18, 15, 10, 7),  # quality
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the value of HSV, of 1
    "resolution": (0.6, 0.5, 0.4, 0.3, 0.25),  # what is left of it, along a side
}
Pixels = NDArray[np.uint8]


def corrupt(image: Image.Image, kind: str, severity: int, *, key: str = "", seed: int = 0) -> Image.Image:
    """Return the image made worse, of the same size, as 8-bit RGB.

    Args:
        image: 8-bit RGB.
        kind: A name in `CONSTANTS`.
        severity: 1 to 5.
        key: Of the image; with the seed it decides the noise.
        seed: Of the noise.

    Raises:
        ValueError: There is no such kind or severity.
    """
    if kind not in CONSTANTS or not 1 <= severity <= 5:
        raise ValueError(f"corruption {kind!r} of severity {severity}: the kinds are {', '.join(CONSTANTS)}, 1 to 5")
    constant = CONSTANTS[kind][severity - 1]
    if kind == "blur":
        # Pillow's is three box blurs each way, close to a Gaussian and as fast for a wide one as for a narrow one.
        return image.filter(ImageFilter.GaussianBlur(constant * min(image.size) / SIDE))
    if kind == "resolution":
        return image.resize(_reduced(image, constant), Image.Resampling.BOX).resize(image.size, Image.Resampling.BOX)
    pixels = np.asarray(image)
    if kind == "contrast":
        mean = pixels.mean(axis=(0, 1), keepdims=True)
        return _rounded((pixels - mean) * constant + mean)
    if kind == "brightness":
        return _rounded(_lighter(pixels.astype(np.float32) / np.float32(255), constant) * 255)
    change = _noise(image, constant, f"{seed}/{kind}/{severity}/{key}") if kind == "noise" else _jpeg(image, constant)
    return _rounded(pixels + _enlarged(change, image.size))


@dataclass(frozen=True)
class CorruptedImages:
    """Images of another source, made worse when they are loaded.

    Attributes:
        clean: The source.
        kind: A name in `CONSTANTS`.
        severity: 1 to 5.
        seed: Of the noise.
    """

    clean: ImageSource
    kind: str
    severity: int
    seed: int = 0

    @property
    def tag(self) -> str:
        """What is done, in one word that differs wherever the pixels do."""
        return f"{self.kind}{self.severity}-s{self.seed}"

    def load(self, key: str) -> Image.Image:
        """Return the image as 8-bit RGB.

        Raises:
            ImageError: The image is missing or cannot be decoded.
        """
        return corrupt(self.clean.load(key), self.kind, self.severity, key=key, seed=self.seed)


@dataclass(frozen=True)
class CorruptedFiles(CorruptedImages):
    """The same over a source of files, so that what is kept of clean images is not taken for these."""

    clean: StoredImages

    @property
    def where(self) -> str:
        """Where the files are."""
        return self.clean.where

    def size(self, key: str) -> int:
        """Return the stored image's size in bytes.

        Raises:
            ImageError: The image is missing.
        """
        return self.clean.size(key)

    def stamp(self, key: str) -> str:
        """Return the stored image's stamp with what is done to it.

        Raises:
            ImageError: The image is missing.
        """
        return f"{self.clean.stamp(key)}|{self.tag}"

    def digest(self, key: str) -> bytes:
        """Return the SHA-256 of the stored image's digest, its key, and what is done to it.

        Raises:
            ImageError: The image is missing or cannot be read.
        """
        return hashlib.sha256(self.clean.digest(key) + f"|{self.tag}|{key}".encode()).digest()


def corrupted(images: ImageSource, kind: str, severity: int, seed: int = 0) -> CorruptedImages:
    """Return a source whose images are made worse, a source of files where `images` is one."""
    if isinstance(images, StoredImages):
        return CorruptedFiles(images, kind, severity, seed)
    return CorruptedImages(images, kind, severity, seed)


def uncorrupted(images: ImageSource) -> ImageSource:
    """Return the clean source below a corrupted one, and any other as it is."""
    return images.clean if isinstance(images, CorruptedImages) else images


def _reduced(image: Image.Image, share: float = 1.0) -> tuple[int, int]:
    """Return width and height at a share of 224 pixels on the shorter side, or of that side where it is less."""
    scale = share * min(SIDE, *image.size) / min(image.size)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def _noise(image: Image.Image, deviation: float, name: str) -> NDArray[np.float32]:
    """Return (h, w, 3) in grey levels; the same in each channel of a grey image."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest(), "big"))
    width, height = _reduced(image)
    channels = 1 if _is_grey(np.asarray(image)) else 3
    drawn = rng.standard_normal((height, width, channels), dtype=np.float32) * np.float32(255 * deviation)
    return np.broadcast_to(drawn, (height, width, 3))


def _jpeg(image: Image.Image, quality: float) -> NDArray[np.float32]:
    """Return (h, w, 3) in grey levels: what compression changes."""
    small = image.resize(_reduced(image), Image.Resampling.BOX)
    before = small.convert("L") if _is_grey(np.asarray(image)) else small
    kept = io.BytesIO()
    before.save(kept, "JPEG", quality=int(quality))
    with Image.open(kept) as after:
        return np.asarray(after.convert("RGB"), np.float32) - np.asarray(small, np.float32)


def _enlarged(change: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return (height, width, 3): every point as large as its part of the image."""
    rows = np.arange(size[1]) * change.shape[0] // size[1]
    columns = np.arange(size[0]) * change.shape[1] // size[0]
    return change[rows[:, None], columns[None, :]]


def _lighter(pixels: NDArray[np.float32], added: float) -> NDArray[np.float32]:
    """Return (h, w, 3) in [0, 1] with hue and saturation kept; black, which has neither, becomes grey."""
    value = pixels.max(axis=2, keepdims=True)
    lifted = np.minimum(value + np.float32(added), 1)
    ratio: NDArray[np.float32] = lifted / np.where(value > 0, value, 1)
    return np.where(value > 0, pixels * ratio, lifted)


def _is_grey(pixels: Pixels) -> bool:
    return bool((pixels[..., :1] == pixels).all())


def _rounded(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
