"""What the audit remembers of an image: a hash of its pixels, a perceptual hash and a thumbnail, made once and kept."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmbench.domains.base import ImageError, ImageSource, StoredImages
from vlmbench.domains.memo import Digests, Memo
from vlmbench.domains.nearest import SIDE, Looks
from vlmbench.domains.parallel import over_images
from vlmbench.progress import Countdown
from vlmbench.weights.source import cache_dir

log = logging.getLogger(__name__)

#: SHA-256 of the pixels, pHash, thumbnail. Another layout or another way to make one needs another folder.
_LAYOUT = np.dtype([("pixels", "S32"), ("phash", "<u8"), ("thumb", "u1", (SIDE * SIDE,))])
FOLDER = "hashes-v2"  # below the cache
_CHUNK = 256  # images between two looks at the clock


@dataclass(frozen=True)
class Hashed:
    """The readable ones of some images, and what is wrong with the others; all arrays have a row per readable image.

    Attributes:
        keys: The images' keys.
        pixels: (n,) S32, SHA-256 of size and decoded pixels.
        stored: (n,) S32, `StoredImages.digest`; None where the source has none.
        looks: For `nearest.near_pairs`.
        unreadable: By key, the reason.
    """

    keys: list[str]
    pixels: NDArray[np.bytes_]
    stored: NDArray[np.bytes_] | None
    looks: Looks
    unreadable: dict[str, str]


def hash_images(images: ImageSource, keys: Sequence[str], cache: Path | None = None) -> Hashed:
    """Hash images, each of them once for all time where its file can be told from others.

    What is found is kept below the cache by the digest of the stored bytes, and that by path, size and time of change
    (`memo.Digests`): an image that was hashed before is not read again unless its file has changed. Several processes
    may do this at once and share the work. A cache that cannot be read or written is warned of and done without;
    damaged entries are made again.

    Args:
        images: The source. One that is not `StoredImages` is hashed anew each time.
        keys: Distinct keys.
        cache: Where it is kept; the project's own cache by default.
    """
    n = len(keys)
    pixels, stored = np.zeros(n, "S32"), np.zeros(n, "S32")
    phashes, thumbs = np.zeros(n, np.uint64), np.zeros((n, SIDE * SIDE), np.uint8)
    faults: dict[str, str] = {}
    remembered = _Remembered(images, cache or cache_dir(), faults) if isinstance(images, StoredImages) else None
    progress = Countdown("Reading images", n)
    starts = list(range(0, n, _CHUNK))
    turn = random.SystemRandom().randrange(len(starts)) if starts else 0  # processes that begin apart share the work
    for done, start in enumerate(starts[turn:] + starts[:turn], 1):
        chunk = keys[start : start + _CHUNK]
        found = remembered.records(chunk) if remembered else _in_memory(images, chunk, faults)
        for i, pair in enumerate(found, start):
            if pair is not None:
                record = np.frombuffer(pair[1], _LAYOUT)[0]
                stored[i] = pair[0]
                pixels[i], phashes[i], thumbs[i] = record["pixels"], record["phash"], record["thumb"]
        progress.update(min(n, done * _CHUNK))
    progress.close()
    if faults:
        good = [i for i, key in enumerate(keys) if key not in faults]
        pixels, stored, phashes, thumbs = pixels[good], stored[good], phashes[good], thumbs[good]
    return Hashed(
        keys=[key for key in keys if key not in faults],
        pixels=pixels,
        stored=stored if remembered else None,
        looks=Looks.of(phashes, thumbs),
        unreadable={key: faults[key] for key in keys if key in faults},
    )


def hash_image(image: Image.Image) -> bytes:
    """Return the record of an RGB image: SHA-256 of size and pixels, 64 bits of pHash, thumbnail.

    pHash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions") is the sign of the low
    frequencies of a 32 x 32 reduction. The thumbnail is reduced with a triangular filter, whose wide support keeps it
    the same, whatever size the image was resized to before.
    """
    record = np.zeros(1, _LAYOUT)
    grey = image.convert("L")
    record["pixels"] = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
    record["phash"] = int(str(imagehash.phash(grey, hash_size=8)), 16)
    record["thumb"] = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR)).reshape(-1)
    return record.tobytes()


def _in_memory(images: ImageSource, keys: Sequence[str], faults: dict[str, str]) -> list[tuple[bytes, bytes] | None]:
    def hash_one(key: str) -> tuple[bytes, bytes] | None:
        try:
            return bytes(32), hash_image(images.load(key))
        except ImageError as error:
            faults[key] = error.reason
            return None

    return over_images(hash_one, keys, "")


class _Remembered:
    """Records from the cache, made where they are missing."""

    def __init__(self, images: StoredImages, cache: Path, faults: dict[str, str]) -> None:
        self.images, self.faults = images, faults
        self.digests = Digests(cache)
        self.hashes = Memo(cache / FOLDER, _LAYOUT.itemsize)  # by digest
        self.cache, self.told = cache, False

    def records(self, keys: Sequence[str]) -> list[tuple[bytes, bytes] | None]:
        """Return digest and record of each image; None for an unreadable one, which `faults` then names."""
        digests, reasons = self.digests.learn(self.images, keys)
        key_of = {digest: key for key, digest in digests.items()}
        broken: dict[bytes, str] = {}

        def hash_file(digest: bytes) -> bytes | None:
            try:
                return hash_image(self.images.load(key_of[digest]))
            except ImageError as error:
                broken[digest] = error.reason
                return None

        records = self.hashes.learn(list(key_of), hash_file)
        error = self.digests.error or self.hashes.error
        if error and not self.told:
            log.warning("%s cannot be used (%s): images are hashed anew each time", self.cache, error)
            self.told = True
        self.faults |= reasons
        self.faults |= {key: broken[digest] for key, digest in digests.items() if digest not in records}
        return [(digests[key], records[digests[key]]) if digests.get(key) in records else None for key in keys]
