"""Images in npz files: rows of one large array, or one array a file."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmbench.domains.arrays import Member, mapped, member, small_array
from vlmbench.domains.base import DomainError, ImageError
from vlmbench.domains.folder_images import FolderImages


class RowImages:
    """Images that are rows of arrays in npz files below one folder; the key is `FILE#ARRAY[ROW]`.

    Args:
        root: The folder.
        arrays: Per array its file below the folder, and its name: 8-bit, (N, H, W) grey or (N, H, W, 3) RGB.

    Raises:
        DomainError: A file is broken, an array is missing, or is not of such a kind.
    """

    def __init__(self, root: Path, arrays: Sequence[tuple[str, str]]) -> None:
        self.root = root.resolve()
        self.members: Mapping[str, Member] = {f"{file}#{name}": _images(root / file, name) for file, name in arrays}
        self._maps: dict[str, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "members": self.members}  # a worker maps the files itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _maps={}, _lock=threading.Lock())

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.root)

    def keys(self, file: str, name: str) -> list[str]:
        """Return the keys of an array's rows, in their order."""
        array = f"{file}#{name}"
        return [f"{array}[{row}]" for row in range(self.members[array].shape[0])]

    def size(self, key: str) -> int:
        """Return the bytes of a row.

        Raises:
            ImageError: There is no such row.
        """
        array, _ = self._place(key)
        return math.prod(self.members[array].shape[1:])

    def stamp(self, key: str) -> str:
        """Return the key with the folder, and the npz file's size and time of change.

        Raises:
            ImageError: There is no such row, or the file is gone.
        """
        array, _ = self._place(key)
        try:
            stat = self.members[array].path.stat()
        except OSError as error:
            raise ImageError(key, f"{self.members[array].path}: {error.strerror}") from error
        return f"{self.root / key}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"

    def digest(self, key: str) -> bytes:
        """Return the SHA-256 of a row's shape and bytes.

        Raises:
            ImageError: There is no such row.
            DomainError: Its array cannot be unpacked.
        """
        row = self._row(key)
        return hashlib.sha256(f"{row.shape}".encode() + row.tobytes()).digest()

    def load(self, key: str) -> Image.Image:
        """Return a row as 8-bit RGB.

        Raises:
            ImageError: There is no such row.
            DomainError: Its array cannot be unpacked.
        """
        return Image.fromarray(np.array(self._row(key))).convert("RGB")

    def _place(self, key: str) -> tuple[str, int]:
        array, _, row = key.removesuffix("]").rpartition("[")
        if array not in self.members or not row.isdecimal() or int(row) >= self.members[array].shape[0]:
            raise ImageError(key, f"no such row; there are {', '.join(map(str, self.members.values()))}")
        return array, int(row)

    def _row(self, key: str) -> NDArray[np.uint8]:
        array, row = self._place(key)
        with self._lock:
            if array not in self._maps:
                self._maps[array] = mapped(self.members[array])
        return self._maps[array][row]


class ArrayFiles:
    """Images that are npz files of their own below one folder; the key is the file's path relative to it.

    Args:
        root: The folder.
        name: Key of the array in every file.
        show: From that array to 8-bit grey (H, W) or RGB (H, W, 3); raises ValueError with what is wrong with it.
    """

    def __init__(self, root: Path, name: str, show: Callable[[NDArray[Any]], NDArray[np.uint8]]) -> None:
        self.files, self.name, self.show = FolderImages(root), name, show
        self.where, self.size, self.stamp = self.files.where, self.files.size, self.files.stamp

    def digest(self, key: str) -> bytes:
        """Return the SHA-256 of the file's bytes, the array's name and how it is shown.

        Raises:
            ImageError: The file is missing or cannot be read.
        """
        return hashlib.sha256(self.files.digest(key) + f"{self.name}:{self.show.__name__}".encode()).digest()

    def load(self, key: str) -> Image.Image:
        """Return the array as 8-bit RGB.

        Raises:
            ImageError: The file is missing, no npz, or has no such array; or the array cannot be shown.
        """
        self.files.size(key)
        try:
            return Image.fromarray(self.show(small_array(self.files.path(key), self.name))).convert("RGB")
        except DomainError as error:
            raise ImageError(key, str(error)) from error
        except ValueError as error:
            raise ImageError(key, f"the array {self.name!r}: {error}") from error


def _images(path: Path, name: str) -> Member:
    found = member(path, name)
    if found.dtype != np.uint8 or len(found.shape) not in (3, 4) or found.shape[3:] not in ((), (3,)):
        raise DomainError(f"{found}; images are uint8 of shape (N, H, W) or (N, H, W, 3)")
    if not all(found.shape):
        raise DomainError(f"{found}: there are no images in it")
    return found
