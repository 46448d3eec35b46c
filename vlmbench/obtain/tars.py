"""The members of a tar one after the other, to the very end; what tarfile takes for an end and is none is an error."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Self

_CHUNK = 2**20


def each_member(archive: Path, told: Callable[[tarfile.TarFile, tarfile.TarInfo], None]) -> None:
    """Call `told` with each member; the members are not kept, as some sets have half a million.

    Args:
        archive: The file, compressed or not.
        told: Called with the open archive and the member.

    Raises:
        TarError, EOFError, OSError, zlib.error, LZMAError: It is damaged, or ends too early.
    """
    with tarfile.open(archive, tarinfo=_Strict) as opened:
        while (info := opened.next()) is not None:
            told(opened, info)
            opened.members.clear()  # type: ignore[attr-defined] # of the class, not of its stubs
        # The checksum of a compressed stream comes after the zeros that fill the last block.
        while opened.fileobj is not None and opened.fileobj.read(_CHUNK):
            pass


class _Strict(tarfile.TarInfo):
    """Headers of which a damaged or missing one is an error; tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, opened: tarfile.TarFile) -> Self:
        """Return the next header."""
        try:
            return super().fromtarfile(opened)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # zeros, which end an archive
            raise
        except tarfile.HeaderError as error:
            missing = isinstance(error, tarfile.EmptyHeaderError)  # type: ignore[attr-defined]
            if missing and not isinstance(opened.fileobj, io.BufferedReader):
                raise  # a compressed stream tells itself whether it is whole
            raise tarfile.ReadError(f"{error} at byte {opened.offset:,}") from error
