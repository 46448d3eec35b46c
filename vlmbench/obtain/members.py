"""What may be in an archive: decided for all its members before the first byte of one is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

_RATIO = 200  # images, tables and masks of a dataset shrink by less as a whole; a bomb by more
_LEAST = 16 * 2**20  # bytes; a small archive of zeros is no danger
_NAME_LIMIT = 255  # bytes of one part of a path, on every common file system


class RefusedArchiveError(Exception):
    """A member may not be extracted; whoever made the archive made it so."""


@dataclass(frozen=True)
class Member:
    """A member as an archive's directory tells of it.

    Attributes:
        name: As it is written there.
        size: Unpacked, in bytes.
        kind: `file`, `folder`, or what else it is.
    """

    name: str
    size: int
    kind: str = "file"


def place_of(name: str) -> PurePosixPath:
    """Return where a member goes below the folder; archives made on Windows may have backslashes.

    Raises:
        RefusedArchiveError: Outside.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", str(path)) or "\0" in name:
        raise RefusedArchiveError(f"its member {name!r} lies outside the folder")
    if any(len(part.encode(errors="surrogateescape")) > _NAME_LIMIT for part in path.parts):
        raise RefusedArchiveError(f"its member {name[:60]!r}... has a name that no file system takes")
    return path


def left_out(path: PurePosixPath) -> bool:
    """Tell whether a member is what macOS adds beside each file, or the folder itself."""
    return not path.parts or path.parts[0] == "__MACOSX"


def limit_of(packed: int) -> int:
    """Return how many bytes an archive of `packed` bytes may become."""
    return _RATIO * packed + _LEAST


def checked(members: Iterable[Member], packed: int) -> Iterator[tuple[Member, PurePosixPath]]:
    """Pass members on with their places, up to the first that may not be extracted.

    Args:
        members: In the archive's order.
        packed: Size of the archive in bytes.

    Raises:
        RefusedArchiveError: A member lies outside, is a link or a device, would overwrite another (also where names
            that differ by case are one), or all together are out of proportion.
    """
    limit, total = limit_of(packed), 0
    files: dict[str, str] = {}
    folders: set[str] = set()
    for member in members:
        path = place_of(member.name)
        if left_out(path):
            continue
        if member.kind not in ("file", "folder"):
            raise RefusedArchiveError(f"its member {member.name!r} is {member.kind}")
        key = str(path).casefold()
        if member.kind == "file":
            if key in files:
                raise RefusedArchiveError(f"its members {files[key]!r} and {member.name!r} are one file on some disks")
            files[key] = member.name
        above = path.parent if member.kind == "file" else path
        while above.parts and str(above).casefold() not in folders:
            folders.add(str(above).casefold())
            above = above.parent
        total += member.size
        if total > limit:
            raise RefusedArchiveError(f"its {packed:,} bytes would become more than {limit:,}, which no dataset does")
        yield member, path
    if both := files.keys() & folders:
        raise RefusedArchiveError(f"its member {files[min(both)]!r} is a file and a folder")
