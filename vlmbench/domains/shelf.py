"""Folders of a cache side by side below one root, of bounded size: who uses one, and which may go."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

ABOUT, USED = "about.json", "in-use"
DISK_SHARE = 0.8  # most of the disk's free space, what is kept counted as free
WHAT = "Preprocessed images that vlmbench keeps; it makes them anew. Safe to delete while no vlmbench runs."


class Shelf:
    """One folder of the cache.

    Args:
        root: Folder of all.
        name: Of this one.
        max_bytes: Most that `root` may hold.
    """

    def __init__(self, root: Path, name: str, max_bytes: float) -> None:
        self.root, self.folder, self.max_bytes = root, root / name, max_bytes
        self._lease: BinaryIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lease": None}  # the main process holds it as long as its workers live

    def hold(self, about: dict[str, Any]) -> None:
        """Make the folder, note its use, and keep others from removing it while this process lives.

        Args:
            about: What `about.json` says besides when and what for.

        Raises:
            OSError: The folder cannot be written.
        """
        while self._lease is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / USED).open("ab")
            fcntl.flock(handle, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):  # removed between opening and locking
                if os.path.samestat(os.fstat(handle.fileno()), (self.folder / USED).stat()):
                    os.utime(self.folder / USED)
                    self._lease = handle
        if not (self.folder / ABOUT).exists():
            text = json.dumps(
                {"what": WHAT, "created": datetime.now(UTC).isoformat(timespec="seconds"), **about}, indent=2
            )
            unfinished = self.folder / f"{ABOUT}.{os.getpid()}"
            unfinished.write_text(text + "\n", encoding="utf-8")
            unfinished.replace(self.folder / ABOUT)

    def room(self) -> float:
        """Return how many bytes may still be added below the root; negative where there are too many."""
        used = 0
        for path in self.root.glob("*/*.bin"):
            with suppress(FileNotFoundError):
                used += path.stat().st_size
        free = shutil.disk_usage(self.root).free
        return min(self.max_bytes, DISK_SHARE * (free + used)) - used

    def make_room(self, wanted: float) -> None:
        """Remove folders that no process holds, the longest unused first, until `wanted` bytes have room."""
        others = [path for path in self.root.glob(f"*/{USED}") if path.parent != self.folder]
        for used in sorted(others, key=_last_used):
            if self.room() >= wanted:
                return
            with suppress(OSError), used.open("ab") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error where somebody holds it
                gone = self.root / f"removed-{os.getpid()}-{used.parent.name}"[:200]
                used.parent.rename(gone)  # at once, so that nobody finds half of it
                shutil.rmtree(gone)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
