"""Bringing a dataset: downloaded and unpacked beside, and put in place when all of it is there and verified."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vlmbench.domains.published.layout import lacking
from vlmbench.obtain import faults
from vlmbench.obtain.archive import is_archive
from vlmbench.obtain.listing import listed, named
from vlmbench.obtain.meter import Meter
from vlmbench.obtain.note import FOLDER, Note, read_note
from vlmbench.obtain.place import check_alike, clashes, intact, settle
from vlmbench.obtain.stage import arrived_of, fresh_of, is_staged, stage
from vlmbench.obtain.wanted import DataUnavailableError, Remote, Wanted
from vlmbench.weights.hub import is_offline, make_room


@dataclass(frozen=True)
class Brought:
    """How it ended.

    Attributes:
        status: `present` or `downloaded`.
        files: Number of files that were downloaded.
        size: Of these, in bytes.
    """

    status: str
    files: int = 0
    size: int = 0


def bring(
    name: str,
    root: Path,
    wanted: Sequence[Wanted],
    layout: Sequence[str],
    *,
    chosen: bool = False,
    how_to_get: str = "",
) -> Brought:
    """Bring what a dataset lacks; where nothing lacks, no server is asked and nothing is written.

    Files that were brought before are brought again if they are gone or changed. A layout that the user put there
    counts as it is.

    Args:
        name: Of the domain, for messages.
        root: Its folder.
        wanted: What to bring.
        layout: Patterns of what must be there at the end.
        chosen: Whether `wanted` depends on settings, so that the layout alone does not tell whether it is all there.
        how_to_get: What a user does to be given it, for messages.

    Raises:
        DataUnavailableError: It cannot be had; what arrived is kept, and nothing is in place but whole files.
        WeightsUnavailableError: A file does not have its published hash; it is moved aside.
    """
    root = Path(os.path.abspath(root))
    if is_whole(root, wanted, layout, chosen=chosen):
        return Brought("present")
    if is_offline():
        raise DataUnavailableError(faults.absent(name, root, "HF_HUB_OFFLINE is set"))
    with faults.explained(name, root, how_to_get):
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        with _alone(root, name):
            if is_whole(root, wanted, layout, chosen=chosen):  # another process was here
                return Brought("present")
            brought = _bring(name, root, wanted, layout)
    if gone := lacking(root, layout):
        raise DataUnavailableError(
            f"All that {name}'s YAML names was downloaded into {root}, and yet nothing there matches "
            f"{', '.join(gone[:5])}. Its owners changed how it lies: mend `layout` or `into` in the YAML, or move the "
            "files."
        )
    return brought


def is_whole(root: Path, wanted: Sequence[Wanted], layout: Sequence[str], *, chosen: bool = False) -> bool:
    """Tell whether all of a dataset is in its folder, without asking a server."""
    if lacking(root, layout):
        return False
    note = read_note(root)
    if note.lost:
        return False
    known = [note.keys(one) for one in wanted]
    sources = {one.source for one in wanted}
    if not any(file["source"] in sources for file in note.files.values()):  # the user put it there
        alone = [
            root / one.into / name for one in wanted for name in named(one) if not (one.unpack and is_archive(name))
        ]
        return bool(layout) and not (chosen and not all(path.is_file() for path in alone))
    return all(keys is not None and all(_is_placed(root, note, key) for key in keys) for keys in known)


def _is_placed(root: Path, note: Note, key: str) -> bool:
    row = note.files[key]
    rows = note.rows(key) if row["placed"] else None
    return rows is not None and all(intact(root / row["into"] / one.path, one) for one in rows)


@contextmanager
def _alone(root: Path, name: str) -> Iterator[None]:
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    lock = root / FOLDER / "lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(lock, timeout=0.5))
        except Timeout:
            print(f"{name}: another process brings it to {root}; waiting for it", file=sys.stderr, flush=True)
            stack.enter_context(WeakFileLock(lock))
        yield


def _bring(name: str, root: Path, wanted: Sequence[Wanted], layout: Sequence[str]) -> Brought:
    note = read_note(root)
    remotes = [remote for one in wanted for remote in _offered(root, note, one)]
    todo = [remote for remote in remotes if not is_staged(root, note, remote)]
    left = {remote.key: (remote.expected.size or 0) - arrived_of(note, remote) for remote in todo}
    total = sum(remote.expected.size or 0 for remote in todo)
    unknown = any(remote.expected.size is None for remote in todo)
    gib = int(sum({remote.wanted.key: remote.wanted.gib for remote in todo}.values()) * 2**30)
    make_room(note.home, max(sum(left.values()), gib if unknown else 0))
    meter = Meter(name, len(todo), max(total, gib if unknown else 0), total - sum(left.values()))
    sizes = 0
    try:
        for remote in todo:
            sizes += stage(root, note, remote, layout, meter)
    finally:
        meter.close()
    keys = {key for one in wanted for key in note.keys(one) or []} | {remote.key for remote in remotes}
    check_alike([(note.files[key]["name"], note.files[key]["into"], note.rows(key) or []) for key in sorted(keys)])
    _place(root, note, remotes)
    for one in wanted:
        if mine := [remote.key for remote in remotes if remote.wanted == one]:
            note.wanted[one.key] = mine
    note.write()
    return Brought("downloaded", len(todo), sizes)


def _offered(root: Path, note: Note, wanted: Wanted) -> list[Remote]:
    keys = note.keys(wanted)
    if keys is not None and all(_is_placed(root, note, key) for key in keys):
        return []
    return listed(wanted)


def _place(root: Path, note: Note, remotes: Sequence[Remote]) -> None:
    """Move all that is staged into place, or nothing where something else lies there."""
    ours = note.own({remote.wanted.source for remote in remotes})
    for remote in remotes:
        fresh = fresh_of(note, remote)
        for new, target in clashes(fresh, root / remote.wanted.into) if fresh.is_dir() else ():
            if target.is_dir() or new.is_dir() or os.path.relpath(target, root) not in ours:
                raise DataUnavailableError(
                    f"{target} is there already, and is not what {remote.name} has at that place. Nothing was put in "
                    f"place: move it away, or take another domain.root. What arrived is kept in {note.home}."
                )
    for remote in remotes:
        if fresh_of(note, remote).is_dir():
            settle(fresh_of(note, remote), root / remote.wanted.into, note.home / "replaced" / remote.wanted.into)
        note.files[remote.key]["placed"] = True
    for folder in (note.home / "fresh", note.home / "parts"):
        for remote in remotes:
            shutil.rmtree(folder / remote.key, ignore_errors=True)
        if folder.is_dir() and not any(folder.iterdir()):  # another domain of this root may have begun
            folder.rmdir()
