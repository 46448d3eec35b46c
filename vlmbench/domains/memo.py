"""What is found out about an image once and remembered for all jobs of a machine, the digest of its bytes above all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from vlmbench.domains.base import ImageError, StoredImages
from vlmbench.domains.parallel import over_images
from vlmbench.domains.store import BlobStore

DIGESTS = "digests-v1"  # below the cache


class Memo:
    """Results of one size by 32-byte key, made once and kept; where nothing can be kept, made each time.

    Attributes:
        error: Why nothing can be kept, if so; to be told to the user, whom one line about the whole cache will do.

    Args:
        folder: Where they are kept.
        size: Of a result in bytes.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._store, self._size = BlobStore(folder), size
        self.error: OSError | None = None
        try:
            self._store.refresh()
        except OSError as error:
            self.error = error

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return those of some results that are kept and whole."""
        found = {key: self._store.get(key) for key in keys}  # what is damaged counts as missing from here on
        return {key: blob for key, blob in found.items() if blob is not None and len(blob) == self._size}

    def learn(self, keys: Sequence[bytes], make: Callable[[bytes], bytes | None]) -> dict[bytes, bytes]:
        """Return results, made where they are missing. Processes that do this at the same time share the work.

        Args:
            keys: Distinct.
            make: From a key to its result, None where there is none. Called in threads, at most once a key.
        """
        made: dict[bytes, bytes | None] = {}

        def make_once(key: bytes) -> bytes | None:
            if key not in made:
                made[key] = make(key)
            return made[key]

        found = self.recall(keys)
        if len(found) < len(keys) and self.error is None:
            try:
                self._store.fill(keys, make_once, "")
            except OSError as error:
                self.error = error
            found = self.recall(keys)
        missing = [key for key in keys if key not in found]
        again = over_images(make_once, missing, "") if missing else []
        return found | {key: blob for key, blob in zip(missing, again, strict=True) if blob is not None}


class Digests:
    """The digests of images, by what tells their files from others without reading them: path, size, time of change.

    Args:
        cache: The cache that they are remembered in.
    """

    def __init__(self, cache: Path) -> None:
        self._memo = Memo(cache / DIGESTS, hashlib.sha256().digest_size)

    @property
    def error(self) -> OSError | None:
        """Why nothing can be remembered, if so."""
        return self._memo.error

    def recall(self, images: StoredImages, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the digests that are remembered, by key; no image is read."""
        marks, _ = _marks(images, keys)
        known = self._memo.recall(list(marks.values()))
        return {key: known[mark] for key, mark in marks.items() if mark in known}

    def learn(self, images: StoredImages, keys: Sequence[str]) -> tuple[dict[str, bytes], dict[str, str]]:
        """Return the digests, and why there is none, by key; what is not remembered is read."""
        marks, reasons = _marks(images, keys)
        key_of = {mark: key for key, mark in marks.items()}
        faults: dict[bytes, str] = {}

        def read(mark: bytes) -> bytes | None:
            try:
                return images.digest(key_of[mark])
            except ImageError as error:
                faults[mark] = error.reason
                return None

        known = self._memo.learn(list(key_of), read)
        reasons |= {key: faults[mark] for key, mark in marks.items() if mark not in known}
        return {key: known[mark] for key, mark in marks.items() if mark in known}, reasons


def _marks(images: StoredImages, keys: Sequence[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return what images are remembered by, and what is wrong with those that are not there."""
    reasons: dict[str, str] = {}

    def mark(key: str) -> bytes | None:
        try:
            # Names of files need not be valid text.
            return hashlib.sha256(images.stamp(key).encode(errors="surrogatepass")).digest()
        except ImageError as error:
            reasons[key] = error.reason
            return None

    found = over_images(mark, keys, "") if len(keys) > 1 else [mark(key) for key in keys]
    return {key: value for key, value in zip(keys, found, strict=True) if value is not None}, reasons
