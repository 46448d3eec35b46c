"""Room on disk: what failed and interrupted cells left, and what finished ones no longer need.

A directory is removed by the one who has claimed it: nobody works there, and who comes meanwhile is told that it is
taken. It is renamed first, in one step, so that nobody ever sees a half of it, and removed when it is out of the way.
What is done is never removed, nor is anything that is not plainly the directory of a cell.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vlmbench.grid.plan import CELL
from vlmbench.records.claim import LOCK, ClaimedError, claim
from vlmbench.records.state import CHECKPOINTS, state_of
from vlmbench.records.store import PREDICTIONS, RECORD, RecordError, read_record

#: What a directory is called from when it is given up until it is gone.
REMOVED = ".removed-"
TASKS = ("diagnosis", "vqa", "pretrain")


@dataclass(frozen=True)
class Removal:
    """Something to remove.

    Attributes:
        cell: The cell's directory.
        paths: What of it goes; the directory itself, or parts of it.
        why: For people.
        size: Bytes on disk.
    """

    cell: Path
    paths: tuple[Path, ...]
    why: str
    size: int


@dataclass(frozen=True)
class Kept:
    """Something that looks as if it might go but is left alone.

    Attributes:
        path: A directory.
        why: For people.
    """

    path: Path
    why: str


def inspect(folder: Path) -> Removal | Kept | None:
    """Return what would be removed of a cell's directory, or why it is left alone; None where nothing is to be said.

    Args:
        folder: Absolute or relative; it need not exist.
    """
    if folder.is_symlink():
        return Kept(folder, "a symbolic link, which is not followed")
    if not folder.is_dir():
        return None
    if fault := not_a_cell(folder):
        return Kept(folder, fault)
    if state_of(folder).status == "running":
        return None
    return _removable(folder)


def _removable(folder: Path) -> Removal | Kept | None:
    """Return the same by the record alone, for a cell that nobody else works on."""
    try:
        status = read_record(folder)["status"] if (folder / RECORD).exists() else "interrupted"
    except RecordError as error:
        return Kept(folder, f"its record is not understood: {error}")
    if status == "done":
        parts = tuple(_leftovers(folder))
        return Removal(folder, parts, "left over in a done cell", sum(map(size_of, parts))) if parts else None
    if any(folder.glob(f"*/**/{RECORD}")):
        return Kept(folder, "it holds results of other cells")
    resumable = " with a checkpoint to go on from" if any((folder / CHECKPOINTS).glob("*.ckpt")) else ""
    return Removal(folder, (folder,), f"{status}{resumable}", size_of(folder))


def _leftovers(folder: Path) -> Iterator[Path]:
    """Yield what a finished cell does not need: checkpoints, and files that were being written when it was killed."""
    for path in sorted(folder.iterdir()):
        temporary = path.name.startswith((f".{RECORD}.", f".{PREDICTIONS}.", ".now."))
        if not path.is_symlink() and (path.is_dir() if path.name == CHECKPOINTS else temporary and path.is_file()):
            yield path


def not_a_cell(folder: Path) -> str:
    """Return why a directory is not a cell's, "" where it is: its name, its lock or record, and what that says."""
    found = CELL.fullmatch(folder.name)
    if found is None:
        return "not named like the directory of a cell"
    if not (folder / LOCK).is_file() and not (folder / RECORD).is_file():
        return f"neither {LOCK} nor {RECORD} is in it"
    try:
        named = str(read_record(folder).get("identity", "")) if (folder / RECORD).exists() else found["digits"]
    except RecordError:
        return ""  # which cell it is does not matter, it is left alone for that
    return "" if named.startswith(found["digits"]) else f"its {RECORD} is of another cell"


def remove(removal: Removal) -> bool:
    """Remove it, unless somebody is at work there or it has changed since it was looked at; returns whether it is gone.

    Raises:
        OSError: It cannot be removed.
    """
    if removal.cell.name.startswith(REMOVED):
        shutil.rmtree(removal.cell)
        return True
    if removal.cell.is_symlink() or not removal.cell.is_dir():
        return False
    aside = removal.cell.with_name(f"{REMOVED}{removal.cell.name}-{secrets.token_hex(4)}")
    try:
        with claim(removal.cell):
            now = _removable(removal.cell)  # it may have been finished between the look and the claim
            if not isinstance(now, Removal) or now.paths != removal.paths:
                return False
            if now.paths != (removal.cell,):
                for path in now.paths:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                return True
            (removal.cell / RECORD).unlink(missing_ok=True)  # reports read records wherever they lie
            removal.cell.rename(aside)
    except ClaimedError:
        return False
    shutil.rmtree(aside)
    return True


def others(output: Path, known: Iterable[Path]) -> list[Path]:
    """Return the directories below `output` where cells lie that are not among the known ones."""
    mine = {os.path.abspath(folder) for folder in known}
    found = []
    for parent in (output / task for task in TASKS):
        if parent.is_dir() and not parent.is_symlink():
            found += [path for path in sorted(parent.iterdir()) if CELL.fullmatch(path.name)]
    return [path for path in found if os.path.abspath(path) not in mine]


def abandoned(parents: Iterable[Path]) -> list[Removal]:
    """Return what a clean that was killed has given up but not removed."""
    found = []
    for parent in parents:
        for path in sorted(parent.glob(f"{REMOVED}*")):
            if not path.is_symlink() and path.is_dir() and CELL.match(path.name.removeprefix(REMOVED)):
                found.append(Removal(path, (path,), "given up by an earlier clean", size_of(path)))
    return found


def size_of(path: Path) -> int:
    """Return the bytes that a file or a tree takes on disk; links count as themselves."""
    try:
        status = path.lstat()
        inside = list(path.iterdir()) if path.is_dir() and not path.is_symlink() else []
    except FileNotFoundError:  # gone meanwhile
        return 0
    return status.st_blocks * 512 + sum(map(size_of, inside))
