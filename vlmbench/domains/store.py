"""Results kept on disk by the hash of what they were made from, filled by several processes at once.

A folder of two files: `data.bin` holds the results one after the other, `index.bin` one record of 64 bytes for each:
key (32 bytes), offset and length (8 each), CRC-32 of the data and of the record (4 each), 8 of padding. Both only grow.
Data go before their record, so that a process that is killed leaves at most a tail that no record names.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmbench.domains.parallel import over_images
from vlmbench.progress import Countdown

DATA, INDEX, LOCK = "data.bin", "index.bin", "lock"
_RECORD = struct.Struct("<32sQQI")
_SIZE = 64  # of a record with its own CRC-32 and padding
_CHUNK = 256

Bytes = NDArray[np.uint8]


class BlobStore:
    """Blobs by 32-byte key in one folder.

    Args:
        folder: Made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[bytes, tuple[int, int, int]] = {}
        self._read = 0  # bytes of the index that were read
        self._data: Bytes | None = None

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}  # a worker maps the file itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]
        self.refresh()

    def get(self, key: bytes) -> Bytes | None:
        """Return a blob, a read-only view of the mapped file; None where it is not there or was damaged."""
        place = self._places.get(key)
        if place is None:
            return None
        offset, length, crc = place
        if self._data is None or offset + length > len(self._data):
            self._data = np.memmap(self.folder / DATA, np.uint8, "r")
        blob = self._data[offset : offset + length]
        if zlib.crc32(blob.data) == crc:
            return blob
        self._places.pop(key, None)  # the next `fill` makes it again, and the later record counts
        return None

    def refresh(self) -> None:
        """Read what was added since, by this process or others."""
        try:
            with (self.folder / INDEX).open("rb") as file:
                file.seek(self._read)
                new = file.read()
            size = (self.folder / DATA).stat().st_size
        except FileNotFoundError:
            return
        for start in range(0, len(new) - _SIZE + 1, _SIZE):
            record = new[start : start + _SIZE]
            key, offset, length, crc = _RECORD.unpack_from(record)
            if zlib.crc32(record[: _RECORD.size]) != struct.unpack_from("<I", record, _RECORD.size)[0]:
                break  # written in part; the next writer cuts it off
            if offset + length <= size:
                self._places[key] = (offset, length, crc)
            self._read += _SIZE

    def fill(self, keys: Sequence[bytes], make: Callable[[bytes], bytes | None], doing: str) -> None:
        """Make what is missing and keep it. Processes that fill at the same time share the work.

        Args:
            keys: What is wanted.
            make: From a key to its blob, the same bytes whoever makes it; None keeps nothing. Called in threads.
            doing: What is being done, for the progress line on stderr; empty shows none.

        Raises:
            OSError: The folder cannot be written, or the disk is full; what was kept so far stays.
        """
        self.refresh()
        missing = [key for key in dict.fromkeys(keys) if key not in self]
        if not missing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        # Each process begins somewhere else, and skips what others have kept in the meantime.
        turn = random.SystemRandom().randrange(len(missing))
        order = missing[turn:] + missing[:turn]
        progress = Countdown(doing, len(order))
        for start in range(0, len(order), _CHUNK):
            self.refresh()
            chunk = [key for key in order[start : start + _CHUNK] if key not in self]
            made = over_images(make, chunk, "")
            self._append([(key, blob) for key, blob in zip(chunk, made, strict=True) if blob is not None])
            if doing:
                progress.update(min(start + _CHUNK, len(order)))
        progress.close()

    def _append(self, blobs: Sequence[tuple[bytes, bytes]]) -> None:
        with self._locked():
            self.refresh()
            new = [(key, blob) for key, blob in blobs if key not in self]
            with open(self.folder / DATA, "ab") as data, open(self.folder / INDEX, "ab") as index:
                index.truncate(self._read)
                begin = offset = data.seek(0, os.SEEK_END)
                records = bytearray()
                try:
                    for key, blob in new:
                        data.write(blob)
                        record = _RECORD.pack(key, offset, len(blob), zlib.crc32(blob))
                        records += (record + struct.pack("<I", zlib.crc32(record))).ljust(_SIZE, b"\0")
                        offset += len(blob)
                    data.flush()
                    index.write(records)
                    index.flush()
                except OSError:
                    os.truncate(self.folder / INDEX, self._read)
                    os.truncate(self.folder / DATA, begin)
                    raise
            self.refresh()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.folder / LOCK, "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
