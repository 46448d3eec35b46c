"""The lock file: which commit of each source a study used, and the size and SHA-256 of every file of it.

```json
{"version": 1, "sources": {"openai/clip-vit-base-patch32": {
  "kind": "hub", "revision": "main", "commit": "<40 digits>",
  "files": {"config.json": {"size": 4186, "sha256": "<64 digits>"}}}}}
```
`revision` is what was asked for. A local folder and an address have no commit; an address has the `archive` as it came.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmbench.errors import UserError
from vlmbench.weights import address
from vlmbench.weights.folder import files_of
from vlmbench.weights.hashes import sha256_of, write_atomically
from vlmbench.weights.source import COMMIT, Source

VERSION = 1


class LockError(UserError):
    """The lock file cannot be read, or does not agree with the configuration or with the files."""


@dataclass(frozen=True)
class Lock:
    """What a lock file says.

    Attributes:
        path: Where it is, or would be.
        sources: Entry of each source by `Source.name`.
    """

    path: Path
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def entry(self, source: Source) -> Mapping[str, Any] | None:
        """Return what is locked of a source, None where nothing is.

        Raises:
            LockError: The configuration asks for another revision than the locked one.
        """
        entry = self.sources.get(source.name)
        # A folder and a repository may have one name, at different times.
        if entry is None or source.kind == "package" or entry.get("kind", source.kind) != source.kind:
            return None
        asked, commit = source.revision, entry.get("commit")
        if asked is not None and asked != entry.get("revision") and asked != commit:
            raise LockError(
                f"model.revision={asked} contradicts {self.path}, which locks {source.name} to {entry.get('revision')} "
                f"(commit {commit}). Leave the revision out, or lock the new one: python -m vlmbench.fetch with the "
                "same model= and update=true."
            )
        return entry

    def check(self, source: Source, folder: Path, *, fetched: bool = False) -> None:
        """Compare the needed files with what is locked of them; each file is read once and remembered.

        Args:
            source: Where they are from.
            folder: Where they are.
            fetched: Whether they were just compared with what is published, so that to fetch them again is no help.

        Raises:
            LockError: At the first file that is missing or another.
        """
        entry = self.entry(source)
        for name, expected in (entry or {}).get("files", {}).items():
            if source.files and not source.wants(name):
                continue
            path = folder / name
            again = "Lock what is published now" if fetched else "Bring it anew"
            mend = (
                f"{again}: python -m vlmbench.fetch with the same model={' and update=true' if fetched else ''}; or "
                f"accept what is there by removing {source.name} from {self.path}."
            )
            if not path.is_file():
                raise LockError(f"{path} is missing, and {self.path} locks it. {mend}")
            size = path.stat().st_size
            if size != expected["size"]:
                raise LockError(f"{path} has changed: {size:,} bytes, {self.path} says {expected['size']:,}. {mend}")
            if sha256_of(path) != expected["sha256"]:
                raise LockError(f"{path} has changed: its SHA-256 is not the one in {self.path}. {mend}")


def read_lock(path: str | Path) -> Lock:
    """Read a lock file; one that is not there locks nothing.

    Raises:
        LockError: It cannot be read.
    """
    where = Path(path).expanduser()
    try:
        content = json.loads(where.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise LockError(f"{where} has version {content['version']}, this program reads {VERSION}. Fetch again.")
        sources = dict(content["sources"])
    except FileNotFoundError:
        return Lock(where)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LockError(f"{where} cannot be read as a lock file: {error!r}. Mend or delete it.") from error
    for name, entry in sources.items():
        if fault := _fault(entry):
            raise LockError(f"{where} cannot be read as a lock file: its entry {name} {fault}. Mend it, or remove it.")
    return Lock(where, sources)


def _fault(entry: Any) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get("files"), dict):
        return "has no `files`"
    if entry.get("kind") == "hub" and not COMMIT.fullmatch(str(entry.get("commit"))):
        return "has no `commit` of 40 digits"
    for name, file in entry["files"].items():
        right = isinstance(file, dict) and isinstance(file.get("size"), int)
        if not right or not re.fullmatch(r"[0-9a-f]{64}", str(file.get("sha256"))):
            return f"has no `size` and `sha256` of {name}"
    return ""


def entry_of(source: Source, folder: Path) -> dict[str, Any]:
    """Return the lock entry of a source as it is in `folder`."""
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
        for name in files_of(folder, source)
    }
    entry: dict[str, Any] = {"kind": source.kind}
    if source.kind == "hub":
        entry |= {"revision": source.revision or "main", "commit": folder.name}
    if source.kind == "address":
        entry["archive"] = {key: address.noted(source)[key] for key in ("size", "sha256")}
    return entry | {"files": files}


def write_entry(path: str | Path, source: Source, entry: Mapping[str, Any]) -> None:
    """Put one entry into a lock file, which may be shared: the others stay as they are.

    Files of the same commit that another model locked stay locked, and so does the revision that one asked for.

    Raises:
        LockError: It cannot be read or written.
    """
    where = Path(path).expanduser()
    try:
        _write_entry(where, source, entry)
    except OSError as error:
        raise LockError(
            f"{where} cannot be written: {error}. Let lock= name a file in a folder where you may write."
        ) from error


def _write_entry(where: Path, source: Source, entry: Mapping[str, Any]) -> None:
    where.parent.mkdir(parents=True, exist_ok=True)
    guard = os.open(where.parent, os.O_RDONLY)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)  # of the folder: a file for it would stay behind
        sources = dict(read_lock(where).sources)
        before = sources.get(source.name, {})
        new = dict(entry)
        if before.get("commit") == entry.get("commit") and COMMIT.fullmatch(str(entry.get("commit"))):
            new["files"] = dict(sorted({**before["files"], **entry["files"]}.items()))
            if source.revision in (None, entry["commit"]):
                new["revision"] = before.get("revision", entry["revision"])
        if new == before:  # so that a lock that may only be read is one
            return
        sources[source.name] = new
        content = {"version": VERSION, "sources": dict(sorted(sources.items()))}
        write_atomically(where, json.dumps(content, indent=1) + "\n")
    finally:
        os.close(guard)
