"""Preprocessed images by key, each decoded once where there is room for it, and counted."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

from PIL import Image

from vlmbench.domains.base import ImageSource
from vlmbench.domains.pixels import KeptPixels

CACHE_BYTES = 2 * 1024**3


class Tally:
    """How many images were decoded, and how many came out of a cache, in this process and its workers."""

    def __init__(self) -> None:
        self._counts = multiprocessing.Array("q", 2)

    def decoded(self) -> None:
        """Count one image that was decoded."""
        self._count(0)

    def cached(self) -> None:
        """Count one image that was not."""
        self._count(1)

    def counts(self) -> dict[str, int]:
        """Return the numbers of `cached` and `decoded` images."""
        decoded, cached = self._counts[:]
        return {"cached": cached, "decoded": decoded}

    def _count(self, which: int) -> None:
        with self._counts.get_lock():
            self._counts[which] += 1


class PixelCache:
    """Preprocessed images by key: from disk where they are kept there, and else from memory while they fit.

    Args:
        images: Where the pixels come from.
        preprocess: The model's own preprocessing, RGB image to something with a size in `nbytes`.
        max_bytes: Of the memory; images beyond this are decoded anew each time.
        kept: Images on disk.
        tally: Told of each image.
    """

    def __init__(
        self,
        images: ImageSource,
        preprocess: Callable[[Image.Image], Any],
        max_bytes: int = CACHE_BYTES,
        kept: KeptPixels | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.images = images
        self.preprocess = preprocess
        self.max_bytes = max_bytes
        self.kept = kept
        self.tally = tally or Tally()
        self._bytes = 0
        self._held: dict[str, Any] = {}

    def __call__(self, key: str) -> Any:
        """Return the preprocessed image.

        Raises:
            ImageError: The image cannot be read.
        """
        pixels = self._held.get(key)
        if pixels is None and self.kept:
            pixels = self.kept.get(key)
        if pixels is not None:
            self.tally.cached()
            return pixels
        pixels = self.preprocess(self.images.load(key))
        self.tally.decoded()
        if self.kept and self.kept.mend(key, pixels):
            return pixels
        if self._bytes + pixels.nbytes <= self.max_bytes:
            self._held[key] = pixels
            self._bytes += pixels.nbytes
        return pixels
