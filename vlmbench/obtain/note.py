"""What was brought of a dataset, when and from where: `.fetch/fetched.json` below its root.

```json
{"version": 1,
 "wanted": {"<key>": ["<key of a file>"]},
 "files": {"<key>": {"source": "doi:10...", "origin": "", "into": ".", "name": "imgs.zip", "size": 1, "sha256": "...",
                     "fetched": "2025-01-01T00:00:00+00:00", "members": 642, "placed": true, "again": false}}}
```
Beside it, `.fetch/lists/<key>.tsv.gz` has path (percent-encoded, as names may have tabs and line breaks), size, digest
and time of change of each file that came of one.
`placed` is set when these are in place, `again` when they replace what had been brought before.
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from vlmbench.obtain.archive import Row
from vlmbench.obtain.wanted import Remote, Wanted
from vlmbench.weights.hashes import write_atomically

FOLDER, NAME = ".fetch", "fetched.json"


@dataclass
class Note:
    """The note of one root.

    Attributes:
        home: The folder `.fetch`.
        wanted: Keys of the files of each thing that was brought.
        files: What is known of each file, by key.
        lost: Whether there was a note that cannot be read, so that nobody knows what of the root is whole.
    """

    home: Path
    wanted: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost: bool = False

    def add(self, remote: Remote, size: int, sha256: str, rows: list[Row]) -> None:
        """Write down a file that is verified and unpacked, but not yet in place."""
        lines = "".join(f"{_quoted(row.path)}\t{row.size}\t{row.digest}\t{row.stamp}\n" for row in rows)
        listed = self._list(remote.key)
        listed.parent.mkdir(parents=True, exist_ok=True)
        fresh = listed.with_suffix(".new")
        fresh.write_bytes(gzip.compress(lines.encode(), 3))
        os.replace(fresh, listed)
        before = self.files.get(remote.key, {})
        self.files[remote.key] = {
            "source": remote.wanted.source,
            "origin": remote.origin,
            "into": remote.wanted.into,
            "name": remote.name,
            "size": size,
            "sha256": sha256,
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
            "members": len(rows),
            "placed": False,
            "again": bool(before.get("placed") or before.get("again")),
        }
        self.write()

    def own(self, sources: set[str]) -> set[str]:
        """Return the files in place that came from these sources, relative to the root, and may be replaced."""
        return {
            os.path.normpath(f"{file['into']}/{row.path}")
            for key, file in self.files.items()
            if file["source"] in sources and (file["placed"] or file.get("again"))
            for row in self.rows(key) or []
        }

    def rows(self, key: str) -> list[Row] | None:
        """Return what came of a file; None where nothing is known of it."""
        try:
            text = gzip.decompress(self._list(key).read_bytes()).decode()
            parts = [line.split("\t") for line in text.splitlines()]
            return [Row(_unquoted(path), int(size), digest, int(stamp)) for path, size, digest, stamp in parts]
        except (OSError, EOFError, ValueError):
            return None

    def keys(self, wanted: Wanted) -> list[str] | None:
        """Return the keys of the files of what is wanted; None where it was not brought, or not all of it."""
        keys = self.wanted.get(wanted.key)
        return keys if keys is not None and all(key in self.files for key in keys) else None

    def write(self) -> None:
        """Write the note, so that a reader sees the old one or the new one."""
        content = {"version": 1, "wanted": self.wanted, "files": self.files}
        write_atomically(self.home / NAME, json.dumps(content, indent=1) + "\n")

    def _list(self, key: str) -> Path:
        return self.home / "lists" / f"{key}.tsv.gz"


def _quoted(path: str) -> str:
    return quote(path, safe="/ ", errors="surrogateescape")


def _unquoted(text: str) -> str:
    return unquote(text, errors="surrogateescape")


def read_note(root: Path) -> Note:
    """Return the note of a root; an empty one where there is none, one that is `lost` where it cannot be read."""
    home = root / FOLDER
    try:
        content = json.loads((home / NAME).read_text(encoding="utf-8"))
        wanted = {str(key): [str(one) for one in keys] for key, keys in content["wanted"].items()}
        files = {str(key): dict(row) for key, row in content["files"].items()}
        known = all({"source", "into", "sha256", "placed"} <= row.keys() for row in files.values())
        return Note(home, wanted, files) if known and content["version"] == 1 else Note(home, lost=True)
    except (FileNotFoundError, NotADirectoryError):
        return Note(home)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Note(home, lost=True)
