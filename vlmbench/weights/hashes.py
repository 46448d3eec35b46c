"""Hashes of files: each file is read once and remembered, so that a folder of 14 GB costs nothing in the next cell."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from vlmbench.weights.source import cache_dir

_SMALL = 2**20  # bytes; reading such a file is quicker than remembering it
_SETTLED = 2.0  # seconds; a file may change again within the resolution of its time stamp


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, remembered by its path, size, time of change and inode."""
    before = path.stat()
    stamp = [before.st_size, before.st_mtime_ns, before.st_ino]
    note = _note(path)
    if before.st_size >= _SMALL and (known := _read(note)) and known["stamp"] == stamp:
        return str(known["sha256"])
    found = digest_of(path, "sha256")
    remember(path, found)
    return found


def digest_of(path: Path, kind: str) -> str:
    """Return a hash of a file, `sha256` or `md5`, read anew."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def remember(path: Path, sha256: str, *, own: bool = False) -> None:
    """Keep the hash of a file; a cache that cannot be written costs time, nothing else.

    Args:
        path: The file.
        sha256: What was computed from it.
        own: Whether this process wrote it, so that nobody is at work on it.
    """
    after = path.stat()
    if after.st_size < _SMALL or (not own and time.time() - after.st_mtime < _SETTLED):
        return
    stamp = [after.st_size, after.st_mtime_ns, after.st_ino]
    try:
        write_atomically(_note(path), json.dumps({"path": str(path.resolve()), "stamp": stamp, "sha256": sha256}))
    except OSError:
        return


def git_blob_sha1(data: bytes) -> str:
    """Return the name that git gives to a file: what the hub publishes for those outside its large storage."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as handle:
        handle.write(text)
    try:
        os.chmod(handle.name, 0o644)
        os.replace(handle.name, path)
    except OSError:
        Path(handle.name).unlink(missing_ok=True)
        raise


def _note(path: Path) -> Path:
    return cache_dir() / "hashes" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"


def _read(note: Path) -> dict[str, Any] | None:
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and {"stamp", "sha256"} <= known.keys() else None
