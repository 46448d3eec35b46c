"""One file of a dataset: downloaded, verified, unpacked into a folder of its own below `.fetch`, and written down."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vlmbench.obtain.archive import DamagedArchiveError, Row, ending_of, is_archive, unpack
from vlmbench.obtain.members import RefusedArchiveError
from vlmbench.obtain.meter import Meter
from vlmbench.obtain.note import Note
from vlmbench.obtain.place import intact
from vlmbench.obtain.wanted import DataUnavailableError, Remote
from vlmbench.weights.download import PART, download
from vlmbench.weights.folder import damage
from vlmbench.weights.hashes import sha256_of
from vlmbench.weights.hub import is_as_published


def fresh_of(note: Note, remote: Remote) -> Path:
    """Return the folder of what came of a file, until it is put in place."""
    return note.home / "fresh" / remote.key


def _incoming(note: Note, remote: Remote) -> Path:
    return note.home / "parts" / remote.key / PurePosixPath(remote.name).name


def arrived_of(note: Note, remote: Remote) -> int:
    """Return how many bytes of a file an interrupted run left."""
    path = _incoming(note, remote)
    part = path.with_name(path.name + PART)
    there = next((one for one in (path, part) if one.is_file()), None)
    return min(there.stat().st_size, remote.expected.size or 0) if there else 0


def is_staged(root: Path, note: Note, remote: Remote) -> bool:
    """Tell whether all that came of a file lies in its fresh folder or already in place."""
    rows = note.rows(remote.key) if remote.key in note.files else None
    if rows is None or (remote.expected.sha256 and note.files[remote.key]["sha256"] != remote.expected.sha256.lower()):
        return False
    fresh, target = fresh_of(note, remote), root / remote.wanted.into
    return all(intact(fresh / row.path, row) or intact(target / row.path, row) for row in rows)


def stage(root: Path, note: Note, remote: Remote, layout: Sequence[str], meter: Meter) -> int:
    """Download and unpack one file into its fresh folder.

    Args:
        root: Of the dataset.
        note: Where it is written down.
        remote: The file.
        layout: An archive that is itself part of it is kept.
        meter: Who is told.

    Returns:
        Its size in bytes.

    Raises:
        DataUnavailableError: It is another thing than its name says, or an archive that cannot be unpacked.
        WeightsUnavailableError: It does not have its published hash; it is moved aside.
        OSError: The server refuses, the connection is lost, or the disk is full.
    """
    from huggingface_hub.utils import build_hf_headers

    arrived, fresh = _incoming(note, remote), fresh_of(note, remote)
    meter.file(remote.name, remote.expected.size or 0)
    # What the user put at its place, or what a kill left whole, need not come again.
    own = root / remote.wanted.into / remote.name
    is_own = remote.expected.hashed and own.is_file() and is_as_published(own, remote.expected)
    if is_own:
        arrived = own
        sha256 = sha256_of(own)
    elif arrived.is_file() and is_as_published(arrived, remote.expected):
        sha256 = sha256_of(arrived)
    else:
        arrived.unlink(missing_ok=True)
        headers = build_hf_headers() if remote.hub else {}
        sha256 = download(remote.url, arrived, remote.expected, headers=headers, told=meter.told)
    size = arrived.stat().st_size
    meter.file_done(size)
    _check_kind(remote, arrived, is_own)
    relative = PurePosixPath(remote.name)
    itself = Row(str(relative), size, f"sha256:{sha256}", arrived.stat().st_mtime_ns)
    packed = remote.wanted.unpack and is_archive(remote.name)
    if remote.wanted.unpack and not relative.suffix and (ending := ending_of(arrived)):
        packed = True
        if not is_own:
            arrived = arrived.replace(arrived.with_name(arrived.name + ending))
    rows = _unpacked(remote, arrived, fresh, is_own) if packed else []
    if not packed or _is_of_layout(remote, layout):
        if not is_own:
            (fresh / relative).parent.mkdir(parents=True, exist_ok=True)
            os.replace(arrived, fresh / relative)
        rows = [*rows, itself]
    note.add(remote, size, sha256, rows)
    if not is_own:
        shutil.rmtree(arrived.parent, ignore_errors=True)
    return size


def _check_kind(remote: Remote, arrived: Path, is_own: bool) -> None:
    """Refuse a page that a server sent in place of a file."""
    fault = damage(arrived) if not arrived.name.lower().endswith((".html", ".htm", ".xml", ".svg")) else ""
    if fault and not is_own:
        aside = _aside(arrived)
        raise DataUnavailableError(
            f"What {remote.url} sends for {remote.name} {fault}. It was moved to {aside}. Access may have to be "
            "granted, or the address has changed: open it in a browser."
        )


def _unpacked(remote: Remote, arrived: Path, fresh: Path, is_own: bool) -> list[Row]:
    folder = fresh / PurePosixPath(remote.name).parent
    try:
        rows = unpack(arrived, folder)
    except RefusedArchiveError as error:
        raise DataUnavailableError(
            f"{arrived} is not unpacked: {error}. Nothing of it was written. Delete it if you do not trust it; what "
            "you unpack yourself into the layout counts as well."
        ) from error
    except DamagedArchiveError as error:
        aside = arrived if is_own else _aside(arrived)
        raise DataUnavailableError(
            f"{remote.name} of {remote.wanted.source} cannot be unpacked ({error}): it is truncated, damaged or no "
            f"such archive. It lies in {aside} and is not used; run the same command again."
        ) from error
    above = PurePosixPath(remote.name).parent
    return [Row(str(above / row.path), row.size, row.digest, row.stamp) for row in rows]


def _aside(path: Path) -> Path:
    aside = path.with_name(path.name + ".damaged")
    os.replace(path, aside)
    return aside


def _is_of_layout(remote: Remote, layout: Sequence[str]) -> bool:
    own = PurePosixPath(remote.wanted.into) / remote.name
    return any(is_archive(pattern) and own.match(pattern) for pattern in layout)
