"""Results kept on disk by the hash of what they were made from, filled by several processes at once.

A folder: `data.bin` holds the results one after the other, `index.bin` one record of 64 bytes for each: key (32 bytes),
offset and length (8 each), CRC-32 of the data and of the record (4 each), 8 of padding. Both only grow, under the lock
of `lock`. Data go before their record, so that a process that is killed leaves at most a tail that no record names, and
what a power cut leaves of either is told by its CRC-32. Of two records of one key the later counts.

Reads are positioned reads rather than a map: a map's pages would count as the process's memory, which records report,
and a file that is cut off or a disk that fails would end the process instead of costing one result.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from vlmbench.domains.claims import claimed
from vlmbench.domains.parallel import over_images
from vlmbench.progress import Countdown

DATA, INDEX, LOCK, CLAIMS = "data.bin", "index.bin", "lock", "claims"
_RECORD = struct.Struct("<32sQQI")
_SIZE = 64  # of a record with its own CRC-32 and padding
_CHUNK = 64  # most results that a process makes between two looks at what others have made
_FEW, _MEMORY = 8, 256 * 2**20  # it makes fewer, down to these, where they take more bytes than this


class BlobStore:
    """Blobs by 32-byte key in one folder. `get` may be called in threads; what refreshes or keeps, in one at a time.

    Args:
        folder: Made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[bytes, tuple[int, int, int]] = {}  # offset, length, CRC-32
        self._read = 0  # bytes of the index that were read
        self._end = 0  # of the data that records name, there or not
        # Held open, because the two belong together, and so that no later file can be taken for one of them.
        self._index: BinaryIO | None = None
        self._data: BinaryIO | None = None

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}  # a worker opens the files itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]
        with suppress(OSError):  # it then has nothing
            self.refresh()

    def size(self, key: bytes) -> int:
        """Return the bytes of a blob, 0 where it is not there."""
        return self._places[key][1] if key in self._places else 0

    def get(self, key: bytes) -> bytes | None:
        """Return a blob; None where it is not there, or was damaged: then it counts as missing from here on."""
        place, data = self._places.get(key), self._data
        if place is None or data is None:
            return None
        offset, length, crc = place
        try:
            blob = os.pread(data.fileno(), length, offset)
        except OSError:  # a bad sector
            blob = b""
        if len(blob) == length and zlib.crc32(blob) == crc:
            return blob
        self._places.pop(key, None)
        return None

    def refresh(self) -> None:
        """Read what was added since, by this process or others; from the beginning where the folder was replaced."""
        try:
            if not self._is_current():
                self._forget()
                self._index, self._data = ((self.folder / name).open("rb", buffering=0) for name in (INDEX, DATA))
        except (FileNotFoundError, NotADirectoryError):
            self._forget()
        if self._index is None or self._data is None:
            return
        index = self._index.fileno()
        new = os.pread(index, max(0, os.fstat(index).st_size - self._read), self._read)
        size = os.fstat(self._data.fileno()).st_size
        for start in range(0, len(new) - _SIZE + 1, _SIZE):
            record = new[start : start + _SIZE]
            self._read += _SIZE
            key, offset, length, crc = _RECORD.unpack_from(record)
            if zlib.crc32(record[: _RECORD.size]) != struct.unpack_from("<I", record, _RECORD.size)[0]:
                continue
            self._end = max(self._end, offset + length)
            if offset + length <= size:
                self._places[key] = (offset, length, crc)

    def fill(
        self,
        keys: Sequence[bytes],
        make: Callable[[bytes], bytes | None],
        doing: str,
        room: Callable[[], float] = lambda: math.inf,
    ) -> int:
        """Make what is missing and keep it. Processes that fill at the same time share the work.

        Args:
            keys: What is wanted.
            make: From a key to its blob, the same bytes whoever makes it; None keeps nothing. Called in threads.
            doing: What is being done, for the progress line on stderr; empty shows none.
            room: How many bytes may still be added. Filling ends where a blob does not fit.

        Returns:
            How many keys are still missing, where room ran out; else 0.

        Raises:
            OSError: The folder cannot be written, or the disk is full; what was kept so far stays.
            Exception: Whatever `make` raises.
        """
        self.refresh()
        missing = [key for key in dict.fromkeys(keys) if key not in self]
        if not missing:
            return 0
        self.folder.mkdir(parents=True, exist_ok=True)
        done, full, step = 0, False, _FEW
        progress = Countdown(doing, len(missing))
        with closing(claimed(self.folder / CLAIMS, missing, _CHUNK)) as claims:
            for wanted in claims:
                self.refresh()  # after the claim: what others made of these is there now
                while wanted and not full:
                    chunk, wanted = wanted[:step], wanted[step:]
                    size, full = self._make([key for key in chunk if key not in self], make, room)
                    step = max(_FEW, min(_CHUNK, _MEMORY // max(size, 1)))
                    done += len(chunk)
                    if doing:
                        progress.update(done)
                if full:
                    break
        progress.close()
        self.refresh()
        return sum(key not in self for key in dict.fromkeys(keys)) if full else 0

    def keep(self, blobs: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep blobs that are not there yet.

        Raises:
            OSError: The folder cannot be written, or the disk is full; nothing of this call is kept then.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self.refresh()
            new = {key: blob for key, blob in blobs if key not in self}
            data, index = (os.open(self.folder / name, os.O_WRONLY | os.O_CREAT, 0o644) for name in (DATA, INDEX))
            try:
                begin = os.lseek(data, 0, os.SEEK_END)
                if not begin:  # the file was lost: what the index names is not there any more
                    os.ftruncate(index, 0)
                # Where data were cut off, what their records name is not given to others: a hole stays.
                offset = os.lseek(data, max(begin, self._end), os.SEEK_SET)
                # What a killed writer left of a record; complete ones stay, good or bad.
                records = os.lseek(index, os.lseek(index, 0, os.SEEK_END) // _SIZE * _SIZE, os.SEEK_SET)
                added = bytearray()
                try:
                    for key, blob in new.items():
                        _write(data, blob)
                        record = _RECORD.pack(key, offset, len(blob), zlib.crc32(blob))
                        added += (record + struct.pack("<I", zlib.crc32(record))).ljust(_SIZE, b"\0")
                        offset += len(blob)
                    _write(index, added)
                except OSError:
                    for handle, length in ((index, records), (data, begin)):
                        with suppress(OSError):
                            os.ftruncate(handle, length)
                    raise
            finally:
                os.close(data)
                os.close(index)
            self.refresh()

    def _make(
        self, keys: Sequence[bytes], make: Callable[[bytes], bytes | None], room: Callable[[], float]
    ) -> tuple[int, bool]:
        """Make and keep; return the largest blob's size, and whether there was too little room."""
        if not keys:
            return 0, False
        left, largest, kept = room(), 0, []
        if left <= 0:
            return 0, True
        for key, blob in zip(keys, over_images(make, keys, ""), strict=True):
            if blob is None:
                continue
            largest, left = max(largest, len(blob)), left - len(blob) - _SIZE
            if left < 0:
                break
            kept.append((key, blob))
        self.keep(kept)
        return largest, left < 0

    def _is_current(self) -> bool:
        """Tell whether the files that are open are those of the folder, and the index has not become shorter."""
        for name, file in ((INDEX, self._index), (DATA, self._data)):
            if file is None or not os.path.samestat(os.fstat(file.fileno()), (self.folder / name).stat()):
                return False
        return self._index is not None and os.fstat(self._index.fileno()).st_size >= self._read

    def _forget(self) -> None:
        self._places, self._read, self._end, self._index, self._data = {}, 0, 0, None, None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.folder / LOCK, "ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _write(handle: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
