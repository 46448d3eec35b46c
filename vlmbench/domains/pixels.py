"""Preprocessed images kept on disk, by the content of the image and the preprocessing, for all jobs of a machine.

Below the cache, `pixels-v1` has a folder for each preprocessing; beside it `memo.Digests` remembers the content of
files by path, size and time of change, so that a second start reads no image. Both can be deleted while nothing runs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import PIL.features

from vlmbench.domains import dicom, images, intensity
from vlmbench.domains.base import ImageError, StoredImages
from vlmbench.domains.codec import Codec, Preprocess
from vlmbench.domains.corruption import uncorrupted
from vlmbench.domains.memo import Digests
from vlmbench.domains.shelf import DISK_SHARE, Shelf
from vlmbench.domains.store import BlobStore
from vlmbench.progress import Countdown

log = logging.getLogger(__name__)

VERSION = 1  # of the layout of the folders and blobs
PIXELS = "pixels-v1"  # below the cache
_CHUNK = 512
#: What decodes and resizes. Absent ones count as absent.
LIBRARIES = (
    *("pillow", "numpy", "torch", "torchvision", "transformers", "open_clip_torch"),
    *("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "python-gdcm", "tifffile", "imagecodecs"),
)
CODECS = ("jpg", "jpg_2000", "libtiff", "webp", "zlib", "libjpeg_turbo")


class KeptPixels:
    """Preprocessed images on disk, read and filled by any number of processes.

    Args:
        source: The images.
        preprocess: The model's own preprocessing; called in threads.
        cache: The cache.
        max_bytes: Most that the preprocessed images in it may take, of all preprocessings.
        model: What the preprocessing is called in messages.
        settings: The preprocessing's configuration, of which synthetic images need not show everything.
        decoded: Told of each image that is decoded.

    Raises:
        UnkeptError: Preprocessing gives something that is not made of tensors.
    """

    def __init__(
        self,
        source: StoredImages,
        preprocess: Preprocess,
        cache: Path,
        max_bytes: float,
        *,
        model: str,
        settings: str = "",
        decoded: Callable[[], None] = lambda: None,
    ) -> None:
        self.source, self.preprocess, self.decoded = source, preprocess, decoded
        self.model = model
        self.codec = Codec(preprocess)
        identity = {
            "version": VERSION,
            "outputs": self.codec.fingerprint,
            "settings": settings,
            "libraries": pixel_versions(),
            "reader": reader_code(source),
        }
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        self.shelf = Shelf(cache / PIXELS, name, max_bytes)
        self._known: dict[str, bytes] = {}  # digest by key, as far as was asked for
        self._damaged: set[str] = set()
        self._writes = True
        self._told = False
        self._digests, self._store = Digests(cache), BlobStore(self.shelf.folder)
        try:
            self.shelf.hold({"model": model, **identity})
        except OSError as error:
            self._stop_writing(error)
        try:  # what others keep in a place that this process cannot write is read
            self._store.refresh()
            if self._digests.error:
                raise self._digests.error
        except OSError as error:
            self._stop_writing(error)

    def get(self, key: str) -> Any:
        """Return a preprocessed image, None where it is not kept."""
        if key not in self._known:
            self._known |= self._digests.recall(self.source, [key])
        digest = self._known.get(key)
        if digest is None or digest not in self._store:
            return None
        blob = self._store.get(digest)
        if blob is None:
            self._damaged.add(key)
            return None
        return self.codec.decode(blob)

    def mend(self, key: str, made: Any) -> bool:
        """Keep an image again that `get` found damaged, and tell whether that was done; others are left to `warm`."""
        if key not in self._damaged or not self._writes:
            return False
        self._damaged.discard(key)
        try:
            self._store.keep([(self._known[key], self.codec.encode(made))])
        except OSError as error:
            self._stop_writing(error)
        return self._writes

    def warm(self, keys: Iterable[str], doing: str) -> bool:
        """Keep what is not kept yet, as far as there is room. Images that cannot be read are left to whoever asks.

        Args:
            keys: Image keys.
            doing: What is being done, for the progress line on stderr.

        Returns:
            Whether all are kept.
        """
        keys = list(dict.fromkeys(keys))
        try:
            self._fill(keys, doing)
        except OSError as error:
            self._stop_writing(error)
        return not self._lacking(keys)

    def _lacking(self, keys: Sequence[str]) -> list[str]:
        return [key for key in keys if self._known.get(key, b"") not in self._store]

    def _fill(self, keys: Sequence[str], doing: str) -> None:
        self._known |= self._digests.recall(self.source, [key for key in keys if key not in self._known])
        self._store.refresh()
        missing = self._lacking(keys)
        if not missing or not self._writes:
            return
        self.shelf.make_room(len(missing) * self.codec.typical_bytes)
        # Each process begins somewhere else: at the same images they would wait for each other.
        turn = random.SystemRandom().randrange(len(missing))
        order = missing[turn:] + missing[:turn]
        progress = Countdown(doing, len(order))
        for start in range(0, len(order), _CHUNK):
            if self._fill_chunk(order[start : start + _CHUNK]):
                left_out = len(self._lacking(order))
                log.warning(
                    "%s: %d of %d images find no room in the pixel cache %s and are decoded each time. Raise "
                    "trainer.pixel_cache_gib (now %g; %d %% of the free disk at most), or delete what is there.",
                    *(self.model, left_out, len(keys), self.shelf.root, self.shelf.max_bytes / 2**30, 100 * DISK_SHARE),
                )
                break
            progress.update(start + _CHUNK)
        progress.close()

    def _fill_chunk(self, keys: Sequence[str]) -> int:
        """Keep some images, hashed just before they are decoded, so that each is read from a slow disk once."""
        self._known |= self._digests.learn(self.source, keys)[0]
        if self._digests.error:
            raise self._digests.error
        wanted = {self._known[key]: key for key in keys if key in self._known}
        return self._store.fill(list(wanted), lambda digest: self._make(wanted[digest], digest), "", self.shelf.room)

    def _make(self, key: str, digest: bytes) -> bytes | None:
        try:
            made = self.preprocess(self.source.load(key))
            if self._digests.recall(self.source, [key]).get(key) != digest:  # replaced since the digest was taken
                return None
        except ImageError:
            return None
        self.decoded()
        blob = self.codec.encode(made)
        if not self._told and not self.codec.is_coded(blob):
            self._told = True
            log.warning(
                "%s: its preprocessing gives other numbers than those of 8 bits; they are kept as they are, which "
                "takes four times the room (trainer.pixel_cache_gib).",
                self.model,
            )
        return blob

    def _stop_writing(self, error: OSError) -> None:
        if self._writes:
            log.warning(
                "The pixel cache %s cannot be written (%s): images that are not in it are decoded each time. "
                "VLMBENCH_CACHE names another place, trainer.pixel_cache_gib=0 does without.",
                *(self.shelf.root, error),
            )
        self._writes = False


def pixel_versions() -> dict[str, str]:
    """Return the versions of what decodes and resizes, "" of what is absent."""
    found = {f"codec {name}": str(PIL.features.version(name)) for name in CODECS}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def reader_code(source: Any) -> str:
    """Return a digest of our own code that makes pixels of files."""
    kinds = [*type(source).__mro__[:-1], *type(uncorrupted(source)).__mro__[:-1]]
    modules = [images, dicom, intensity, *(sys.modules[kind.__module__] for kind in kinds)]
    files = {name for module in modules if (name := getattr(module, "__file__", None))}
    found = hashlib.sha256(type(source).__qualname__.encode())
    for name in sorted(files, key=lambda name: Path(name).name):
        found.update(Path(name).read_bytes())
    return found.hexdigest()
