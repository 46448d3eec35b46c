"""What a frozen vision tower gives for images, kept on disk by the content of the image for all jobs of a machine.

Below the cache, `vision-v1` has a folder for each tower, preprocessing and arithmetic; an image's tensors are one blob
in the format of safetensors. It can be deleted while nothing runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from vlmbench.backbones.generative.inputs import ImageInputs
from vlmbench.domains.shelf import Shelf
from vlmbench.domains.store import BlobStore

VISION = "vision-v1"  # below the cache
WHAT = "What frozen vision towers give, which vlmbench keeps and makes anew. Safe to delete while no vlmbench runs."
#: Most of the host's memory that it takes besides.
MEMORY_BYTES = 2 * 2**30
_TOKENS = "tokens"  # beside the tensors
_SAMPLE = 4  # images by which the size of all is told before they are made


class SeenImages:
    """What a tower gives, by image; processes that fill it at the same time share the work.

    Args:
        cache: The cache.
        max_bytes: Most that all folders in `vision-v1` may take; the longest unused go first.
        name: Of the folder: what it is made of.
        about: The same in plain values, for who looks into it.
        digests: Of the content of each image, by key.
        make: From a key to what is kept; called in threads.

    Raises:
        OSError: The folder cannot be written.
    """

    def __init__(
        self,
        cache: Path,
        max_bytes: float,
        name: str,
        about: dict[str, Any],
        digests: Mapping[str, bytes],
        make: Callable[[str], ImageInputs],
    ) -> None:
        self.digests, self.make = digests, make
        self.recalled: Callable[[], None] = lambda: None  # told of each image that is not made
        self.shelf = Shelf(cache / VISION, name, max_bytes)
        self.shelf.hold({**about, "what": WHAT})
        self._store = BlobStore(self.shelf.folder)
        self._store.refresh()
        self._held: dict[bytes, ImageInputs] = {}
        self._bytes = 0

    def lacking(self) -> list[bytes]:
        """Return the digests of the images that are not kept."""
        return [digest for digest in dict.fromkeys(self.digests.values()) if digest not in self._store]

    def fill(self, doing: str) -> float:
        """Keep what is not kept yet, if there is room for all of it.

        Args:
            doing: What is being done, for the progress line on stderr.

        Returns:
            How many bytes are missing for those that are not kept; 0 where all are.

        Raises:
            OSError: The folder cannot be written; what was kept so far stays.
            ImageError: An image cannot be read.
        """
        missing = self.lacking()
        if not missing:
            return 0
        keys = {digest: key for key, digest in self.digests.items()}

        def made(digest: bytes) -> bytes:
            return packed(self.make(keys[digest]))

        sample = {digest: made(digest) for digest in missing[:: max(1, len(missing) // _SAMPLE)][:_SAMPLE]}
        each = sum(map(len, sample.values())) / len(sample)
        self.shelf.make_room(each * len(missing))
        self._store.refresh()  # others may have kept some meanwhile
        lacks = each * len(self.lacking()) - self.shelf.room()
        if lacks > 0:
            return lacks
        self._store.keep(sample.items())
        self._store.fill(self.lacking(), made, doing, self.shelf.room)
        return each * len(self.lacking())

    def __call__(self, key: str) -> ImageInputs:
        """Return what stands in for an image; what is damaged on disk is made anew.

        Raises:
            ImageError: It is, and the image cannot be read.
        """
        digest = self.digests[key]
        found = self._held.get(digest)
        if found is None and (blob := self._store.get(digest)) is not None:
            found = unpacked(blob)
        if found is not None:
            self.recalled()
        else:
            found = self.make(key)
            with suppress(OSError):  # a disk that has become full: it is made once more, at worst
                self._store.keep([(digest, packed(found))])
        if digest not in self._held and self._bytes + found.nbytes <= MEMORY_BYTES:
            self._held[digest] = found
            self._bytes += found.nbytes
        return found

    def nbytes(self) -> int:
        """Return how much the images take on disk."""
        return sum(self._store.size(digest) for digest in set(self.digests.values()))


class SeenRows(Sequence[ImageInputs]):
    """What stands in for the pixels of some examples, read when it is asked for.

    Args:
        images: Key of the image of each row.
        seen: Gives what stands in for it.
    """

    def __init__(self, images: Sequence[str], seen: SeenImages) -> None:
        self.images, self.seen = images, seen

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: Any) -> Any:
        return self.seen(self.images[row])


def packed(image: ImageInputs) -> bytes:
    """Return an image as bytes."""
    tensors = {key: value.contiguous() for key, value in image.tensors.items()}
    return safetensors.torch.save({**tensors, _TOKENS: torch.tensor(image.tokens)})


def unpacked(blob: bytes) -> ImageInputs:
    """Return an image from bytes of `packed`."""
    tensors = safetensors.torch.load(blob)
    return ImageInputs(tensors, int(tensors.pop(_TOKENS)))
