"""Images inside parquet files, as dataset repositories on the hub keep them: a column of `{bytes, path}`.

An image is named by the SHA-256 of its bytes, so that all questions on one picture name the same image, in whichever
rows it is repeated. Which rows hold which image is found in one pass and remembered by the file's path, size and time
of change. In the same pass every picture goes, once, into a store that all parquet files share: a row group has to be
read as a whole, which for every image of a shuffled epoch would mean to read a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlmbench.domains.base import DomainError, ImageError
from vlmbench.domains.images import decode_image
from vlmbench.domains.parquet_index import FileIndex, image_store, index_file, read_one, readable
from vlmbench.progress import Countdown

_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BINARIES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)


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
        self.store = image_store()
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
            return decode_image(kept if kept is not None else read_one(index.path, self.column, row), key)
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
        with readable(path):
            file = pq.ParquetFile(path)
            _check_columns(path, file.schema_arrow, columns, image)
            frame = file.read(columns=list(columns)).to_pandas()
        index = index_file(path, image, progress, done)
        done += len(frame)
        keys = index.keys()
        frame = frame.astype(object).where(frame.notna(), "").astype(str)
        frames.append(frame.assign(**{image: [keys[number] for number in index.rows]}))
        indices.append(index)
    progress.close()
    return frames, ParquetImages(indices, image, where)


def _count(path: Path) -> int:
    with readable(path):
        return int(pq.ParquetFile(path).metadata.num_rows)


def _check_columns(path: Path, schema: Any, columns: Sequence[str], image: str) -> None:
    names = list(schema.names)
    if twice := sorted({name for name in (*columns, image) if names.count(name) > 1}):
        raise DomainError(f"{path}: the column {twice[0]!r} is there more than once")
    if missing := [name for name in (*columns, image) if name not in names]:
        raise DomainError(f"{path}: no column {', '.join(map(repr, missing))}; the columns are {', '.join(names)}")
    for name in columns:
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(is_kind(kind) for is_kind in _TEXTS):
            raise DomainError(f"{path}: the column {name!r} is of type {kind}, where texts are expected")
    kind = schema.field(image).type
    if pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]:
        kind = kind.field("bytes").type
    if not any(is_kind(kind) for is_kind in _BINARIES):
        raise DomainError(
            f"{path}: the column {image!r} is of type {schema.field(image).type}, where images, {{bytes, path}} or "
            "binary, are expected"
        )
