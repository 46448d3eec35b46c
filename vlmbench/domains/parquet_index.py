"""Which images parquet files hold: looked through once, remembered, and every picture kept once in a store."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlmbench.domains.base import DomainError
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


def image_store() -> BlobStore:
    """Return the store of all pictures of all parquet files."""
    return BlobStore(cache_dir() / "parquet" / "images")


def index_file(path: Path, image: str, progress: Countdown, before: int) -> FileIndex:
    """Return what is remembered of a file, or look through it, keep its images, and remember it.

    Args:
        path: The file.
        image: Its column of images.
        progress: Told of the rows.
        before: Rows of the files before.

    Raises:
        DomainError: The file cannot be read, a row has no image, or the images cannot be kept.
    """
    stat = path.stat()
    stamp = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    name = hashlib.sha256(f"1:{stamp}:{image}".encode()).hexdigest()
    remembered = cache_dir() / "parquet" / "index" / f"{name}.npz"
    known = _remembered(remembered)
    store = image_store()
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
            if any(digest not in store for digest in found):
                store.keep(zip(found, blobs, strict=True))
            progress.update(before + len(rows))
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
    with readable(path):
        for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=[image]):
            blobs = [item["bytes"] if isinstance(item, dict) else item for item in batch.column(0).to_pylist()]
            for number, blob in enumerate(blobs, start=row + 1):
                if not blob:
                    raise DomainError(f"{path}: row {number} has no image in it; a path alone cannot be followed")
            row += len(blobs)
            yield blobs


def read_one(path: Path, image: str, row: int) -> bytes:
    """Return one image, by reading its row group.

    Args:
        path: The file.
        image: Its column of images.
        row: From 0.

    Raises:
        DomainError: The file cannot be read, or has no such row.
    """
    with readable(path):
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
def readable(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises on a broken file into an error that names it.

    Raises:
        DomainError: The file cannot be read.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        told = " ".join(str(error).split())[:200]
        raise DomainError(
            f"{path}: cannot be read as a parquet file ({told}); it may be cut off, fetch it again"
        ) from error
