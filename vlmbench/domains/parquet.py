"""Images inside parquet files, as dataset repositories on the hub keep them: a column of `{bytes, path}`.

An image is named by the SHA-256 of its bytes, so that all questions on one picture name the same image, in whichever
rows it is repeated. Which rows hold which image is found in one pass and remembered by the file's path, size and time
of change. In the same pass every picture goes, once, into a store that all parquet files share: a row group has to be
read as a whole, which for every image of a shuffled epoch would mean to read a hundred.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from vlmbench.domains.base import DomainError, ImageError
from vlmbench.domains.images import decode_image
from vlmbench.domains.store import BlobStore
from vlmbench.progress import Countdown
from vlmbench.weights.source import cache_dir

_ROWS = 32  # read at a time: of pathology images some 10 MB


@dataclass(frozen=True)
class FileIndex:
    """Which image each row of a parquet file holds.

    Attributes:
        path: The file.
        stamp: What changes when the file does: path, size, time.
        digests: SHA-256 of each distinct image, (U, 32) uint8, in the order of their first rows.
        sizes: Bytes of each distinct image, (U,).
        first: First row of each distinct image, (U,).
        rows: Per row, the number of its image, (N,).
    """

    path: Path
    stamp: str
    digests: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    first: NDArray[np.int64]
    rows: NDArray[np.int64]

    def keys(self) -> list[str]:
        """Return the distinct images' keys, 64 hex digits each."""
        return [digest.tobytes().hex() for digest in self.digests]


class ParquetImages:
    """Images by the SHA-256 of their bytes.

    Args:
        indices: Of the files, as `read_parquet` makes them.
        column: The column of images.
        where: The folder of the files, for messages.
    """

    def __init__(self, indices: Sequence[FileIndex], column: str, where: Path) -> None:
        self.indices = list(indices)
        self.column = column
        self.folder = where
        self.store = _store()
        self.store.refresh()
        #: Key to file, and number among the file's images.
        self._places = {
            key: (i, number)
            for i, index in reversed(list(enumerate(indices)))
            for number, key in enumerate(index.keys())
        }

    @property
    def where(self) -> str:
        """The folder of the files."""
        return str(self.folder)

    def size(self, key: str) -> int:
        """Return the image's size in bytes.

        Raises:
            ImageError: No such image.
        """
        index, number = self._place(key)
        return int(index.sizes[number])

    def stamp(self, key: str) -> str:
        """Return the file's path, size and time with the image's key.

        Raises:
            ImageError: No such image.
        """
        index, _ = self._place(key)
        return f"{index.stamp}:{key}"

    def digest(self, key: str) -> bytes:
        """Return the SHA-256 of the image's bytes, which is its key.

        Raises:
            ImageError: No such image.
        """
        self._place(key)
        return bytes.fromhex(key)

    def load(self, key: str) -> Image.Image:
        """Return the image as 8-bit RGB.

        Raises:
            ImageError: No such image, or it cannot be read or decoded; the message names its file and row.
        """
        index, number = self._place(key)
        kept = self.store.get(bytes.fromhex(key))
        row = int(index.first[number])
        try:
            return decode_image(kept if kept is not None else _one(index.path, self.column, row), key)
        except (ImageError, DomainError) as error:
            reason = error.reason if isinstance(error, ImageError) else str(error)
            raise ImageError(key, f"{reason} (row {row + 1} of {index.path.name})") from error

    def _place(self, key: str) -> tuple[FileIndex, int]:
        place = self._places.get(key)
        if place is None:
            raise ImageError(key, f"no image of these bytes in the parquet files of {self.folder}")
        return self.indices[place[0]], place[1]


def read_parquet(
    paths: Sequence[Path], columns: Sequence[str], where: Path, image: str = "image"
) -> tuple[list[pd.DataFrame], ParquetImages]:
    """Read parquet files with a column of images.

    Args:
        paths: The files.
        columns: The columns of texts that are wanted.
        where: Their folder, for messages.
        image: The column of images, `{bytes, path}` or bytes alone.

    Returns:
        Per file, a table of `columns`, all texts and "" for null, and of `image`, the images' keys; and the images.

    Raises:
        DomainError: A file is cut off or no parquet file, a column is missing or of another type, a row has no image,
            or the store cannot be written.
    """
    frames, indices = [], []
    progress = Countdown("Unpacking images", sum(_count(path) for path in paths))
    done = 0
    for path in paths:
        with _read(path):
            file = pq.ParquetFile(path)
            _check_columns(path, file.schema_arrow, columns, image)
            frame = file.read(columns=list(columns)).to_pandas()
        index = _index(path, image, progress, done)
        done += len(frame)
        keys = index.keys()
        frame = frame.astype(object).where(frame.notna(), "").astype(str)
        frames.append(frame.assign(**{image: [keys[number] for number in index.rows]}))
        indices.append(index)
    progress.close()
    return frames, ParquetImages(indices, image, where)


def _store() -> BlobStore:
    return BlobStore(cache_dir() / "parquet" / "images")


def _count(path: Path) -> int:
    with _read(path):
        return int(pq.ParquetFile(path).metadata.num_rows)


def _check_columns(path: Path, schema: Any, columns: Sequence[str], image: str) -> None:
    names = list(schema.names)
    if missing := [name for name in (*columns, image) if name not in names]:
        raise DomainError(f"{path}: no column {', '.join(map(repr, missing))}; the columns are {', '.join(names)}")
    for name in columns:
        kind = schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DomainError(f"{path}: the column {name!r} is of type {kind}, where texts are expected")
    kind = schema.field(image).type
    if pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DomainError(
            f"{path}: the column {image!r} is of type {schema.field(image).type}, where images, {{bytes, path}} or "
            "binary, are expected"
        )


def _index(path: Path, image: str, progress: Countdown, done: int) -> FileIndex:
    """Return what is remembered of a file, or look through it, keep its images, and remember it."""
    stat = path.stat()
    stamp = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    name = hashlib.sha256(f"1:{stamp}:{image}".encode()).hexdigest()
    remembered = cache_dir() / "parquet" / "index" / f"{name}.npz"
    known = _remembered(remembered)
    store = _store()
    if known is not None:
        store.refresh()
        if all(digest.tobytes() in store for digest in known["digests"]):
            return FileIndex(path, stamp, **known)
    numbers: dict[bytes, int] = {}
    sizes: list[int] = []
    first: list[int] = []
    rows: list[int] = []
    try:
        for blobs in _batches(path, image):
            found = [hashlib.sha256(blob).digest() for blob in blobs]
            for row, (digest, blob) in enumerate(zip(found, blobs, strict=True), start=len(rows)):
                if digest not in numbers:
                    numbers[digest] = len(numbers)
                    sizes.append(len(blob))
                    first.append(row)
                rows.append(numbers[digest])
            store.fill(found, dict(zip(found, blobs, strict=True)).__getitem__, "")
            progress.update(done + len(rows))
        named = {"sizes": sizes, "first": first, "rows": rows}
        arrays: dict[str, Any] = {"digests": np.frombuffer(b"".join(numbers), np.uint8).reshape(-1, 32)}
        arrays |= {name: np.array(values, np.int64) for name, values in named.items()}
        _remember(remembered, arrays)
    except OSError as error:
        raise DomainError(
            f"the images of {path} cannot be unpacked into {store.folder}: {error.strerror or error}; make room there, "
            "or set VLMBENCH_CACHE to a folder with more"
        ) from error
    return FileIndex(path, stamp, **arrays)


def _batches(path: Path, image: str) -> Iterator[list[bytes]]:
    row = 0
    with _read(path):
        for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=[image]):
            blobs = [item["bytes"] if isinstance(item, dict) else item for item in batch.column(0).to_pylist()]
            for number, blob in enumerate(blobs, start=row + 1):
                if not blob:
                    raise DomainError(f"{path}: row {number} has no image in it; a path alone cannot be followed")
            row += len(blobs)
            yield blobs


def _one(path: Path, image: str, row: int) -> bytes:
    """Return one image, by reading its row group."""
    with _read(path):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if row < count:
                item = file.read_row_group(group, columns=[image]).column(0)[row].as_py()
                return item["bytes"] if isinstance(item, dict) else item
            row -= count
    raise DomainError("the file has fewer rows than before")


def _remembered(path: Path) -> dict[str, Any] | None:
    """Return the arrays of an index, None where there is none or it was damaged."""
    try:
        with np.load(path) as file:
            return {name: file[name] for name in ("digests", "sizes", "first", "rows")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _remember(path: Path, arrays: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        try:
            np.savez(file, **arrays)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


@contextmanager
def _read(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        told = " ".join(str(error).split())[:200]
        raise DomainError(
            f"{path}: cannot be read as a parquet file ({told}); it may be cut off, fetch it again"
        ) from error
