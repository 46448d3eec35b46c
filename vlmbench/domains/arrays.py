"""Arrays in npz files: found, checked by their headers, and mapped; never held in memory as a whole.

An npz is a zip of npy files. A stored npy is mapped where it lies; a deflated one is unpacked once into
`arrays` below the cache folder (VLMBENCH_CACHE) and mapped there. Pickles inside are never read.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vlmbench.domains.base import DomainError
from vlmbench.progress import Countdown
from vlmbench.weights.source import cache_dir

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: signature, lengths of name and extra field
_CHUNK = 2**22
#: What a broken or foreign npz raises, in zipfile, zlib and numpy.
_BROKEN = (OSError, EOFError, ValueError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Member:
    """One array of an npz file, as its headers describe it.

    Attributes:
        path: The npz file.
        name: The array's key.
        dtype: Of its entries.
        shape: Of the array.
        fortran: Whether the first index runs fastest.
        begin: Bytes of the npy header, which come before the entries.
    """

    path: Path
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    begin: int

    def __str__(self) -> str:
        return f"{self.path}: the array {self.name!r} is {self.dtype} of shape {self.shape}"


def members(path: Path) -> list[str]:
    """Return the keys of an npz file.

    Raises:
        DomainError: The file is missing, cut off, or no npz.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except _BROKEN as error:
        raise DomainError(
            f"{path} is no npz file, or is cut off ({error}); compare its size and checksum with the published ones "
            "and fetch it again"
        ) from error


def member(path: Path, name: str) -> Member:
    """Return what the headers say of one array.

    Raises:
        DomainError: The file is broken, or has no such array, or one of Python objects, which would have to be
            unpickled.
    """
    there = members(path)
    if name not in there:
        raise DomainError(f"{path} has no array {name!r}; it has {', '.join(there) or 'none'}")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(file)
            found = Member(path, name, dtype, shape, fortran, file.tell())
            size = archive.getinfo(f"{name}.npy").file_size
    except _BROKEN as error:
        raise DomainError(f"{path}: the array {name!r} cannot be read ({error}); fetch the file again") from error
    if dtype.hasobject:
        raise DomainError(f"{found}: Python objects, which are not read because a pickle can run code")
    if size != found.begin + math.prod(shape) * dtype.itemsize:
        raise DomainError(f"{found}, which does not fit its {size:,} bytes; fetch the file again")
    return found


def small_array(path: Path, name: str) -> NDArray[Any]:
    """Return one array in memory, such as labels.

    Raises:
        DomainError: As `member`, or its bytes are damaged.
    """
    found = member(path, name)
    try:
        with np.load(path, allow_pickle=False) as file:
            values: NDArray[Any] = file[name]
            return values
    except _BROKEN as error:
        raise DomainError(f"{found}, and cannot be read ({error}); fetch the file again") from error


def mapped(found: Member) -> NDArray[Any]:
    """Return an array as a read-only map of a file, unpacked before where it has to be.

    Raises:
        DomainError: The npz is damaged, or there is no room to unpack.
    """
    order: Any = "F" if found.fortran else "C"
    try:
        with zipfile.ZipFile(found.path) as archive:
            info = archive.getinfo(f"{found.name}.npy")
        if info.compress_type == zipfile.ZIP_STORED:
            with found.path.open("rb") as file:
                file.seek(info.header_offset)
                signature, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if signature != b"PK\3\4":
                raise zipfile.BadZipFile("its local header is not where the directory says")
            begin = info.header_offset + _LOCAL_HEADER.size + name + extra + found.begin
            return np.memmap(found.path, found.dtype, "r", begin, found.shape, order)
        return np.memmap(_unpacked(found, info), found.dtype, "r", found.begin, found.shape, order)
    except _BROKEN as error:
        raise DomainError(f"{found}, and cannot be read ({error}); fetch the file again") from error


def _unpacked(found: Member, info: zipfile.ZipInfo) -> Path:
    """Return the npy file that holds a deflated member; one process writes it, the others wait."""
    folder = cache_dir() / "arrays"
    stat = found.path.stat()
    made_of = f"{found.path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{info.filename}:{info.CRC}:{info.file_size}"
    target = folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.npy"
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with target.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_file():
                _inflate(found, info, target)
    except OSError as error:
        raise DomainError(
            f"{found.path} is compressed, and {found.name!r} cannot be unpacked to {folder}, which takes "
            f"{info.file_size / 2**30:.1f} GiB: {error}. Let VLMBENCH_CACHE name a folder with that much room"
        ) from error
    return target


def _inflate(found: Member, info: zipfile.ZipInfo, target: Path) -> None:
    part = target.with_suffix(".part")
    progress = Countdown(f"Unpacking {found.name} of {found.path.name}, MiB", info.file_size // 2**20)
    try:
        with zipfile.ZipFile(found.path) as archive, archive.open(info) as file, part.open("wb") as out:
            while chunk := file.read(_CHUNK):  # at the end zipfile compares the CRC-32
                out.write(chunk)
                progress.update(out.tell() // 2**20)
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    progress.close()
