"""Frozen features kept on disk by the content of what they were made of, made once for all jobs that want them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vlmbench.domains.shelf import Shelf

log = logging.getLogger(__name__)

FEATURES = "features-v1"  # below the cache
DATA, BUILDING = "features.bin", "building"
WHAT = "Frozen features that vlmbench keeps; it makes them anew. Safe to delete while no vlmbench runs."
_LOOK_SECONDS, _TELL_SECONDS = 0.2, 5.0


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the name of features from everything that changes a digit of them."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def kept_features(
    cache: Path, max_bytes: float, parts: Mapping[str, Any], make: Callable[[], np.ndarray], label: str
) -> tuple[np.ndarray, bool]:
    """Return features, made where they are not kept; while one process makes them, others that want them wait.

    Args:
        cache: The cache; its folder `features-v1` holds one folder for each array.
        max_bytes: Most that all of them may take; the longest unused go first. 0 keeps nothing.
        parts: What they are made of, as plain values.
        make: Returns them as float32 (N, F).
        label: Who asks, for messages.

    Returns:
        The features, and whether they were kept before.

    Raises:
        Exception: Whatever `make` raises.
    """
    if max_bytes <= 0:
        return make(), False
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


def _keep(shelf: Shelf, made: np.ndarray, label: str) -> None:
    blob = _packed(made)
    shelf.make_room(len(blob))
    if shelf.room() >= len(blob):
        _write(shelf.folder / DATA, blob)
        return
    log.warning(
        "%s: features of %.1f MiB find no room in %s. Raise trainer.feature_cache_gib (now %g), or delete some there.",
        *(label, made.nbytes / 2**20, shelf.root, shelf.max_bytes / 2**30),
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


def _read(path: Path) -> np.ndarray | None:
    """Return an array (N, F), None where there is none or it is damaged."""
    try:
        blob = path.read_bytes()
    except FileNotFoundError:
        return None
    head, _, data = blob.partition(b"\n")
    try:
        about = json.loads(head)
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise ValueError("its bytes are not those that were written")
        return np.frombuffer(data, dtype="<f4").reshape(about["shape"]).copy()
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s) and is made anew.", path, error)
        return None


def _packed(made: np.ndarray) -> bytes:
    data = np.ascontiguousarray(made, dtype="<f4").tobytes()
    head = json.dumps({"shape": list(made.shape), "sha256": hashlib.sha256(data).hexdigest()})
    return head.encode() + b"\n" + data


def _write(path: Path, blob: bytes) -> None:
    """Write beside the target and rename: a reader finds all or nothing."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(blob)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
