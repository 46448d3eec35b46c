"""Archives into a fresh folder: zip, tar (gzip, bzip2, xz), and gzip of one file."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vlmbench.obtain.members import Member, RefusedArchiveError, checked, left_out, limit_of, place_of
from vlmbench.obtain.tars import each_member
from vlmbench.progress import Countdown
from vlmbench.weights.hub import make_room

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_AS_THEY_ARE = (".nii.gz",)  # what reads these reads them packed
_CHUNK = 2**20
# What zipfile, tarfile and the decoders raise for files that are truncated or damaged; ValueError for names that are no
# UTF-8, OSError without a number or with that of a place before the beginning.
_UNREADABLE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    IndexError,
)


class DamagedArchiveError(Exception):
    """An archive cannot be read to its end: it is truncated, damaged, or another thing altogether."""


@dataclass(frozen=True)
class Row:
    """A file that was written, so that a later change can be seen.

    Attributes:
        path: Relative to the folder, with forward slashes.
        size: In bytes.
        digest: `crc32:...` or `sha256:...`.
        stamp: Time of change in nanoseconds, as it was then.
    """

    path: str
    size: int
    digest: str
    stamp: int


def is_archive(name: str) -> bool:
    """Tell by a file's name whether it is unpacked."""
    lower = name.lower()
    return lower.endswith((".zip", *_TARS, ".gz")) and not lower.endswith(_AS_THEY_ARE)


def ending_of(path: Path) -> str:
    """Return the ending that a file without one should have, as its bytes tell; "" for what is no archive.

    Some servers offer an archive at an address that ends in `/blob/` or in a number.
    """
    with path.open("rb") as handle:
        head = handle.read(262)
    if head.startswith(b"PK\x03\x04"):
        return ".zip"
    if head.startswith(b"\x1f\x8b"):
        try:
            return ".tar.gz" if tarfile.is_tarfile(path) else ".gz"
        except (*_UNREADABLE, OSError):
            return ".gz"
    return ".tar" if head[257:] == b"ustar" else ""


def unpack(archive: Path, target: Path) -> list[Row]:
    """Extract an archive into a new folder; nothing is there until all of it is.

    Args:
        archive: The file; its name says what it is.
        target: The folder; what an interrupted run left beside it is removed.

    Returns:
        What was written.

    Raises:
        RefusedArchiveError: A member may not be extracted, or not here; nothing was written.
        DamagedArchiveError: It cannot be read to its end.
        OSError: The disk is full, or a file cannot be written.
    """
    fresh = target.with_name(target.name + ".unpacking")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    lower = archive.name.lower()
    way = _unpack_zip if lower.endswith(".zip") else _unpack_tar if lower.endswith(_TARS) else _unpack_gzip
    try:
        rows = way(archive, fresh)
    except (*_UNREADABLE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        first = next(iter(str(error).splitlines()), "").rstrip(": ")  # tarfile lists all that it tried
        raise DamagedArchiveError(f"{type(error).__name__}: {first}") from error
    else:
        shutil.rmtree(target, ignore_errors=True)
        os.replace(fresh, target)
        return rows
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _unpack_zip(archive: Path, fresh: Path) -> list[Row]:
    def members(infos: list[zipfile.ZipInfo]) -> Iterator[Member]:
        for info in infos:
            if info.flag_bits & 0x1:
                raise RefusedArchiveError(f"its member {info.filename!r} is encrypted")
            mode = info.external_attr >> 16
            if stat.S_ISLNK(mode):
                kind = "a link"
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "a device"
            else:
                kind = "folder" if info.is_dir() or info.filename.endswith("\\") else "file"
            yield Member(info.filename, info.file_size, kind)

    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
            kept = [member for member, _ in checked(members(infos), archive.stat().st_size)]
            writing = _Writing(archive, fresh, sum(member.size for member in kept))
            for info in infos:
                if not left_out(place_of(info.filename)) and not info.filename.endswith(("/", "\\")):
                    with opened.open(info) as stream:
                        writing.write(stream, info.filename, info.file_size)
            return writing.done()
    except NotImplementedError as error:  # Deflate64, which Windows makes of files over 2 GiB
        raise RefusedArchiveError(f"Python cannot unpack its method ({error}); 7-Zip and unzip can") from error


def _unpack_tar(archive: Path, fresh: Path) -> list[Row]:
    total = 0
    for member, _ in checked(_tar_members(archive, fresh), archive.stat().st_size):
        total += member.size
    writing = _Writing(archive, fresh, total)

    def extract(opened: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        if info.isreg() and not left_out(place_of(info.name)):
            stream = opened.extractfile(info)
            assert stream is not None, "a regular member has bytes"  # noqa: S101
            with stream:
                writing.write(stream, info.name, info.size)

    each_member(archive, extract)
    return writing.done()


def _tar_members(archive: Path, fresh: Path) -> list[Member]:
    members: list[Member] = []
    packed = archive.stat().st_size
    total = 0

    def look(_: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        kinds = {info.isreg(): "file", info.isdir(): "folder", info.issym() or info.islnk(): "a link"}
        kind = kinds.get(True, "a device")
        place_of(info.name)
        if kind in ("file", "folder") and hasattr(
            tarfile, "data_filter"
        ):  # not before 3.11.4; the rules here are stricter
            try:
                tarfile.data_filter(info, str(fresh))
            except tarfile.FilterError as error:
                raise RefusedArchiveError(f"its member {info.name!r} is refused: {error}") from error
        members.append(Member(info.name, info.size if kind == "file" else 0, kind))
        nonlocal total
        total += info.size
        if total > limit_of(packed):  # before all of it is decoded on the way to the next member
            raise RefusedArchiveError(f"its {packed:,} bytes would become more than {total:,}, which no dataset does")

    each_member(archive, look)
    return members


def _unpack_gzip(archive: Path, fresh: Path) -> list[Row]:
    limit = limit_of(archive.stat().st_size)
    writing = _Writing(archive, fresh, 0)
    with gzip.open(archive) as stream:
        writing.write(stream, archive.name[: -len(".gz")], None, min(limit, shutil.disk_usage(fresh).free))
    return writing.done()


class _Writing:
    """Members as files, with a line that tells how far it is.

    Args:
        archive: Whose members.
        fresh: The folder.
        total: Bytes to write.
    """

    def __init__(self, archive: Path, fresh: Path, total: int) -> None:
        make_room(fresh, total)
        self.fresh, self.rows, self.have = fresh, list[Row](), 0
        self.progress = Countdown(f"Unpacking {archive.name} (MiB)", max(total // 2**20, 1))

    def write(self, stream: IO[bytes] | Any, name: str, size: int | None, limit: int | None = None) -> None:
        """Write one member of `size` bytes, or of at most `limit`."""
        place = place_of(name)
        path = self.fresh / place
        path.parent.mkdir(parents=True, exist_ok=True)
        crc, count, most = 0, 0, size if size is not None else limit or 0
        with path.open("xb") as out:
            while chunk := stream.read(_CHUNK):
                count += len(chunk)
                if count > most:
                    raise RefusedArchiveError(f"its member {name!r} becomes more than {most:,} bytes")
                crc = zlib.crc32(chunk, crc)
                out.write(chunk)
                self.have += len(chunk)
                self.progress.update(self.have // 2**20)
        if size is not None and count != size:
            raise EOFError(f"member {name!r} ends after {count:,} of {size:,} bytes")
        self.rows.append(Row(str(place), count, f"crc32:{crc:08x}", path.stat().st_mtime_ns))

    def done(self) -> list[Row]:
        """Return what was written."""
        self.progress.close()
        return self.rows
