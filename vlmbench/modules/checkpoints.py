"""Checkpoint files: written so that a kill leaves the old one or the new one, and found again after it."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from vlmbench.modules.stopping import POSITION

LAST = "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames; Lightning's own writes to TMPDIR first, from where a move is a copy."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: It cannot be written; what was there before is untouched.
        """
        _replace(Path(path), lambda handle: torch.save(checkpoint, handle))


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is there wholly or not at all.

    Raises:
        OSError: It cannot be written; what was there before is untouched.
    """
    _replace(path, lambda handle: handle.write(text.encode()))


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")  # one name, so that a killed process leaves one file at most
    try:
        with beside.open("wb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(path)
    except RuntimeError as error:  # torch's own words for a disk that is full
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


@dataclass(frozen=True)
class Found:
    """A checkpoint from which training can go on.

    Attributes:
        path: The file.
        start: Epoch to begin with, and how many of its batches are done.
    """

    path: Path
    start: tuple[int, int]


def newest(folder: Path, label: str) -> Found | None:
    """Return the newest checkpoint of a folder that is whole; each that is not is told on stderr and left out.

    Args:
        folder: Need not exist.
        label: The cell, for messages.

    Raises:
        UnpicklingError: A whole file holds more than tensors and plain values.
    """
    for path in sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        if not whole(path):
            print(f"{label}: {path} is damaged and left out.", file=sys.stderr, flush=True)
            continue
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        best = next((kept["best_model_path"] for kept in state["callbacks"].values() if "best_model_path" in kept), "")
        if best and not (folder / Path(best).name).exists():
            print(f"{label}: {path} goes with {best}, which is gone; it is left out.", file=sys.stderr, flush=True)
            continue
        return Found(path, tuple(state[POSITION]["start"]))
    return None


def whole(path: Path) -> bool:
    """Return whether a checkpoint file is complete, by the checksums within it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
