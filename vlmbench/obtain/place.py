"""From the fresh folders into the root: nothing that lies there already is overwritten unseen."""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from vlmbench.obtain.archive import Row
from vlmbench.obtain.wanted import DataUnavailableError
from vlmbench.weights.hashes import sha256_of

_CHUNK = 2**20


def intact(path: Path, row: Row) -> bool:
    """Tell whether a file is the one that was brought; it is read only where its time of change is another."""
    try:
        found = path.stat()
    except OSError:
        return False
    if found.st_size != row.size:
        return False
    return found.st_mtime_ns == row.stamp or _digest(path, row.digest) == row.digest


def check_alike(lists: Iterable[tuple[str, str, list[Row]]]) -> None:
    """Check that files which come of several archives and have one name have the same bytes.

    Args:
        lists: Name, folder below the root, and rows of each.

    Raises:
        DataUnavailableError: At the first two that differ.
    """
    seen: dict[str, tuple[str, Row]] = {}
    for name, into, rows in lists:
        for row in rows:
            where = os.path.normpath(f"{into}/{row.path}")
            other, before = seen.setdefault(where, (name, row))
            if (before.size, before.digest) != (row.size, row.digest):
                raise DataUnavailableError(
                    f"{other} and {name} both have {where}, with different bytes. Nothing was put in place: the two "
                    "do not belong into one folder (`into` of the domain's YAML), or one is of another version."
                )


def clashes(fresh: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each file that is to be put where another lies, with different bytes, or a folder."""
    if not os.path.lexists(target):
        return
    if fresh.is_dir() and target.is_dir():
        for entry in sorted(os.scandir(fresh), key=lambda entry: entry.name):
            yield from clashes(fresh / entry.name, target / entry.name)
    elif fresh.is_dir() or target.is_dir() or not target.exists() or not filecmp.cmp(fresh, target, shallow=False):
        yield fresh, target


def settle(fresh: Path, target: Path, aside: Path) -> None:
    """Move a fresh file or folder into place; whole folders at once where there is none of that name.

    Args:
        fresh: What is to be moved.
        target: Where it goes.
        aside: Where what lies there with other bytes goes first.
    """
    if not os.path.lexists(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(fresh, target)
    elif fresh.is_dir() and target.is_dir():
        for entry in list(os.scandir(fresh)):
            settle(fresh / entry.name, target / entry.name, aside / entry.name)
        fresh.rmdir()
    elif target.exists() and filecmp.cmp(fresh, target, shallow=False):
        os.replace(fresh, target)
    else:
        aside.parent.mkdir(parents=True, exist_ok=True)
        print(f"{target} had been changed; it was moved to {aside}", file=sys.stderr)
        os.replace(target, aside)
        os.replace(fresh, target)


def _digest(path: Path, like: str) -> str:
    if like.startswith("sha256:"):
        return f"sha256:{sha256_of(path)}"
    crc = 0
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return f"crc32:{crc:08x}"
