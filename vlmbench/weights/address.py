"""Files behind an address: downloaded into vlmbench's cache, verified, and unpacked where they are a zip archive."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from vlmbench.weights.download import LATER, Expected, download
from vlmbench.weights.folder import lacking
from vlmbench.weights.hashes import write_atomically
from vlmbench.weights.hub import Progress, make_room, safe
from vlmbench.weights.source import Source, WeightsUnavailableError, cache_dir

CONTENT, NOTE = "content", "source.json"
_FRESH = ".fresh"  # beside the content that it replaces
_MEMBERS = 10_000
_UNPACKED = 64 * 2**30  # bytes; no checkpoint here is larger
# What zipfile raises for damaged, encrypted or unknown members, and for a member below one that is a file.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    EOFError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
)
_RATIO = 200  # weights hardly compress; a bomb does


def home_of(source: Source) -> Path:
    """Return the folder of an address in vlmbench's cache."""
    name = PurePosixPath(unquote(urlsplit(source.text).path)).name or "file"
    return cache_dir() / "files" / f"{hashlib.sha256(source.text.encode()).hexdigest()[:16]}-{name}"


def present(source: Source) -> Path | None:
    """Return the folder with what an address gave, None where it was not brought yet."""
    home = home_of(source)
    return _inside(home / CONTENT) if noted(source) and (home / CONTENT).is_dir() else None


def noted(source: Source) -> dict[str, Any]:
    """Return what was written down when an address was brought: `size` and `sha256` of the file as it arrived.

    Empty where nothing was, or what was written cannot be read.
    """
    try:
        note = json.loads((home_of(source) / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and {"size", "sha256"} <= note.keys() else {}


def is_other(source: Source) -> bool:
    """Tell whether what was brought is not the file whose hash the source publishes."""
    return source.sha256 is not None and noted(source).get("sha256") != source.sha256.lower()


def bring(source: Source, progress: Progress, sha256: str | None = None, *, anew: bool = False) -> Path:
    """Download and unpack; the last thing written is the note that says that it is complete.

    What is here stays until all of what replaces it has arrived.

    Args:
        source: The address.
        progress: Who is told.
        sha256: What the lock file says; the source's own goes before it.
        anew: Whether to replace what is here.

    Raises:
        WeightsUnavailableError: Another hash than published, an archive that may not be unpacked, or no checkpoint.
        OSError: The server refuses, the connection is lost, or the disk is full.
    """
    from huggingface_hub.utils import WeakFileLock

    if source.text.startswith("http:") and not (source.sha256 or sha256):
        raise WeightsUnavailableError(
            f"{source.text} is not encrypted on its way: give its published `sha256` in the model's YAML, or an https "
            "address."
        )
    home = home_of(source)
    home.mkdir(parents=True, exist_ok=True)
    name = home.name.split("-", 1)[1]
    with WeakFileLock(home / "lock"):
        if not anew and (there := present(source)) is not None and not is_other(source):
            return there
        size = size_of(source.text)
        make_room(home, size or 0)
        progress.begin(source, size or 0)
        try:
            progress.file(name, size or 0)
            expected = Expected(size, source.sha256 or sha256)
            found = download(source.text, home / name, expected, headers={}, told=progress.told)
        finally:
            progress.end()
        size = (home / name).stat().st_size
        shutil.rmtree(home / _FRESH, ignore_errors=True)
        if name.endswith(".zip"):
            unpack(home / name, home / _FRESH)
            (home / name).unlink()
        else:
            (home / _FRESH).mkdir()
            os.replace(home / name, home / _FRESH / name)
        if gone := lacking(_inside(home / _FRESH), source):
            shutil.rmtree(home / _FRESH)
            raise WeightsUnavailableError(
                f"{source.text} is incomplete: it lacks {', '.join(gone[:3])}. Check the address, or name its files in "
                "`files` of the model's YAML."
            )
        forget(source)
        os.replace(home / _FRESH, home / CONTENT)
        write_atomically(home / NOTE, json.dumps({"url": source.text, "size": size, "sha256": found}, indent=1))
    return present(source) or home


def forget(source: Source) -> None:
    """Remove what an address gave; the note goes first, as it says that the rest is complete."""
    (home_of(source) / NOTE).unlink(missing_ok=True)
    shutil.rmtree(home_of(source) / CONTENT, ignore_errors=True)


def _inside(content: Path) -> Path:
    """Return the folder of the files: an archive of one folder is that folder."""
    found = [path for path in content.iterdir() if path.name != "__MACOSX"]
    return found[0] if len(found) == 1 and found[0].is_dir() else content


def unpack(archive: Path, target: Path) -> None:
    """Extract a zip archive into a new folder, after its members were checked.

    Raises:
        WeightsUnavailableError: It is no zip, or a member is a link, lies outside, or is out of proportion.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            if fault := _fault(members):
                raise WeightsUnavailableError(f"{archive} is not unpacked: {fault}. Delete it if you do not trust it.")
            make_room(target.parent, sum(member.file_size for member in members))
            fresh = Path(tempfile.mkdtemp(dir=target.parent))
            try:
                opened.extractall(fresh)
                fresh.chmod(0o755)
                os.replace(fresh, target)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except _UNREADABLE as error:
        raise WeightsUnavailableError(
            f"{archive} is no zip archive that can be unpacked ({type(error).__name__}: {error}): a page was saved in "
            "its place, the download is damaged, or it is encrypted. Delete it and run the same command again."
        ) from error


def _fault(members: list[zipfile.ZipInfo]) -> str:
    if len(members) > _MEMBERS:
        return f"it has {len(members):,} members"
    for member in members:
        if not safe(member.filename):
            return f"its member {member.filename!r} lies outside the folder"
        if stat.S_ISLNK(member.external_attr >> 16):
            return f"its member {member.filename!r} is a link"
    size, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if size > _UNPACKED or size > _RATIO * max(packed, 2**20):
        return f"{packed:,} bytes would become {size:,}, which no checkpoint does"
    return ""


def size_of(url: str) -> int | None:
    """Ask a server for the size of a file in bytes; None where it does not say.

    Raises:
        OSError: It refuses, or cannot be reached.
    """
    from huggingface_hub.utils import get_session, hf_raise_for_status

    answer = get_session().head(url, headers={"Accept-Encoding": "identity"}, timeout=10, follow_redirects=True)
    if answer.status_code in (403, 405, 501) or answer.status_code in LATER:  # some servers sign or know GET alone
        return None
    hf_raise_for_status(answer)
    length = answer.headers.get("Content-Length")
    return int(length) if length and answer.headers.get("Content-Encoding") in (None, "identity") else None
