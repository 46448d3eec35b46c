"""Bringing a source to this machine ahead of time: downloaded, compared with what is published, and locked."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from vlmbench.errors import UserError
from vlmbench.weights import address, faults, hub
from vlmbench.weights.folder import damage, files_of, lacking
from vlmbench.weights.locate import here, locate
from vlmbench.weights.lock import Lock, LockError, entry_of, read_lock, write_entry
from vlmbench.weights.progress import TransferProgress
from vlmbench.weights.source import Source, WeightsUnavailableError


@dataclass(frozen=True)
class Brought:
    """How one source ended.

    Attributes:
        label: What needs it.
        source: The source.
        status: `shipped`, `local`, `present`, `downloaded`, or `missing`.
        revision: Commit, or the first digits of an address's SHA-256.
        files: Number of files.
        size: Of the files, in bytes.
        fault: Why it is missing.
    """

    label: str
    source: Source
    status: str
    revision: str = ""
    files: int = 0
    size: int = 0
    fault: str = ""


def fetch(label: str, source: Source, lock_path: str, *, update: bool = False) -> Brought:
    """Bring a source and write it into the lock file; whatever goes wrong is in the result.

    Args:
        label: What needs it, for the table.
        source: What to bring.
        lock_path: The lock file; what it names is brought at the locked commit.
        update: Ask for the revision anew, whatever is locked.
    """
    try:
        lock = read_lock(lock_path)
        if update:
            lock = replace(lock, sources={name: row for name, row in lock.sources.items() if name != source.name})
        if update and source.remote and hub.is_offline():
            raise WeightsUnavailableError(
                f"update=true asks for {source.name} anew, and HF_HUB_OFFLINE is set: leave out the one or the other."
            )
        if source.kind == "address":
            folder, status = _from_address(source, lock, update)
        elif source.kind == "hub":
            folder, status = _remote(source, lock, update)
        else:
            folder, status = Path(locate(source, lock)), "shipped" if source.kind == "package" else "local"
        names = files_of(folder, source)
        if source.kind != "package":
            write_entry(lock_path, source, entry_of(source, folder))
    except UserError as error:
        return Brought(label, source, "missing", source.revision or "", fault=str(error))
    revision = folder.name if source.kind == "hub" else ""
    if source.kind == "address":
        revision = address.noted(source)["sha256"]
    return Brought(label, source, status, revision, len(names), sum((folder / n).stat().st_size for n in names))


def _from_address(source: Source, lock: Lock, update: bool) -> tuple[Path, str]:
    folder, gone = here(source, lock)
    anew = folder is not None and (
        update
        or bool(gone)
        or any(damage(folder / name) for name in files_of(folder, source))
        or _changed(source, folder, lock)
    )
    if hub.is_offline() or (folder is not None and not anew):
        return Path(locate(source, lock)), "present"
    archive = (lock.entry(source) or {}).get("archive", {}).get("sha256")
    with faults.explained(source):
        address.bring(source, TransferProgress(), archive, anew=anew)
    folder = Path(locate(source))
    lock.check(source, folder, fetched=True)
    return folder, "downloaded"


def _remote(source: Source, lock: Lock, update: bool) -> tuple[Path, str]:
    entry = lock.entry(source)
    folder, gone = here(source, lock)
    complete = folder is not None and not gone
    if folder is not None and complete and entry and not _changed(source, folder, lock):
        return folder, "present"
    try:
        return _from_hub(source, lock)
    except WeightsUnavailableError as error:
        # A cache that was copied here is as good as a download where nothing says otherwise.
        if update or folder is None or not complete or entry:
            raise
        if any(damage(folder / name) for name in files_of(folder, source)):
            raise
        print(f"{source.name}: taken from the cache, not compared with the hub: {error}", file=sys.stderr)
        return folder, "present"


def _from_hub(source: Source, lock: Lock) -> tuple[Path, str]:
    if hub.is_offline():
        raise WeightsUnavailableError(faults.absent(source, "HF_HUB_OFFLINE is set"))
    entry = lock.entry(source) or {}
    with faults.explained(source):
        hub.ask(hub.endpoint())
        commit, files = hub.listing(source, entry.get("commit"))
        folder = hub.snapshot(source, commit)
        for name in hub.unlike(folder, files):
            print(f"{source.name}: {name} is not as published; moved aside and brought anew", file=sys.stderr)
            hub.set_aside(folder / name)
        whole = all((folder / file.name).is_file() for file in files)
        hub.bring(source, commit, files, TransferProgress(), newest=not entry)
    if gone := lacking(folder, source):
        raise WeightsUnavailableError(faults.incomplete(source, str(folder), gone))
    for name in files_of(folder, source):
        if fault := damage(folder / name):
            raise WeightsUnavailableError(f"{source.name}: {name} {fault}, and is so at the hub. Take other `files`.")
    lock.check(source, folder, fetched=True)
    return folder, "present" if whole else "downloaded"


def _changed(source: Source, folder: Path, lock: Lock) -> bool:
    try:
        lock.check(source, folder)
    except LockError:
        return True
    return False
