"""Frozen features kept on disk by the content of what they were made of, made once for all jobs that want them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmbench.domains.shelf import Shelf

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

FEATURES = "features-v1"  # below the cache
DATA, BUILDING = "features.bin", "building"
LAYOUT = 2  # of the file
_ALIGNED = 64  # bytes: where the header and each array end, so that arrays are read in place
WHAT = "Frozen features that vlmbench keeps; it makes them anew. Safe to delete while no vlmbench runs."
_LOOK_SECONDS, _TELL_SECONDS = 0.2, 5.0


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the name of features from everything that changes a digit of them."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def kept_features(
    cache: Path, max_bytes: float, parts: Mapping[str, Any], make: Callable[[], Arrays], label: str
) -> tuple[Arrays, bool]:
    """Return features, made where they are not kept; while one process makes them, others that want them wait.

    Args:
        cache: The cache; its folder `features-v1` holds one folder for all arrays that are made together.
        max_bytes: Most that all of them may take; the longest unused go first. 0 keeps nothing.
        parts: What they are made of, as plain values.
        make: Returns them by name, as float32 of N rows each.
        label: Who asks, for messages.

    Returns:
        The arrays by name, and whether they were kept before. Those that were are mapped from the disk: nothing but
        what is looked at is in memory, and what is written to them stays with this process.

    Raises:
        Exception: Whatever `make` raises.
    """
    if max_bytes <= 0:
        return make(), False
    parts = {"layout": LAYOUT, **parts}
    shelf = Shelf(cache / FEATURES, key_of(parts), max_bytes)
    with ExitStack() as held:
        try:
            shelf.hold({"what": WHAT, **parts})
            held.enter_context(_alone(shelf.folder / BUILDING, label))
            found = _read(shelf.folder / DATA)
        except OSError as error:
            log.warning("%s: features cannot be kept in %s (%s).", label, shelf.root, error)
            return make(), False
        if found is not None:
            return found, True
        made = make()
        try:
            _keep(shelf, made, label)
        except OSError as error:
            log.warning("%s: features cannot be kept in %s (%s).", label, shelf.root, error)
        return made, False


def _keep(shelf: Shelf, made: Arrays, label: str) -> None:
    wanted = sum(array.nbytes + _ALIGNED for array in made.values()) + 1024
    shelf.make_room(wanted)
    if shelf.room() >= wanted:
        _write(shelf.folder / DATA, made)
        return
    log.warning(
        "%s: features of %.1f MiB find no room in %s. Raise trainer.feature_cache_gib (now %g), or delete some there.",
        *(label, wanted / 2**20, shelf.root, shelf.max_bytes / 2**30),
    )


@contextmanager
def _alone(path: Path, label: str) -> Iterator[None]:
    """Hold a lock of the kernel, which ends with the process; say so where it is waited for."""
    started, told = time.monotonic(), False
    with path.open("ab") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told and time.monotonic() - started > _TELL_SECONDS:
                    told = True
                    print(f"{label}  waits for the same features, which another cell encodes", file=sys.stderr)
                time.sleep(_LOOK_SECONDS)
        yield


def _read(path: Path) -> Arrays | None:
    """Return arrays by name, None where there are none or they are damaged: every byte is held against its hash."""
    if not path.exists():
        return None
    try:
        blob = np.memmap(path, np.uint8, mode="c")
        head = _head(blob)
        arrays, start = {}, len(head)
        for name, about in json.loads(head).items():
            shape = tuple(about["shape"])
            part = blob[start : start + 4 * math.prod(shape)]
            if hashlib.sha256(part.data).hexdigest() != about["sha256"]:
                raise ValueError("its bytes are not those that were written")
            arrays[name] = part.view("<f4").reshape(shape)
            start += _padded(part.nbytes)
        return arrays
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s is damaged (%s) and is made anew.", path, error)
        return None


def _head(blob: NDArray[np.uint8]) -> bytes:
    """Return the first line of a file, which says what follows."""
    for size in range(_ALIGNED, len(blob) + 1, _ALIGNED):
        if blob[size - 1] == ord("\n"):
            return blob[:size].tobytes()
    raise ValueError("it has no header")


def _padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _write(path: Path, made: Arrays) -> None:
    """Write beside the target and rename: a reader finds all or nothing."""
    arrays = {name: np.ascontiguousarray(array, "<f4") for name, array in made.items()}
    about = {name: {"shape": list(a.shape), "sha256": hashlib.sha256(a.data).hexdigest()} for name, a in arrays.items()}
    head = json.dumps(about).encode()
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            file.write(head.ljust(_padded(len(head) + 1) - 1) + b"\n")
            for array in arrays.values():
                file.write(array.data)
                file.write(bytes(_padded(array.nbytes) - array.nbytes))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
