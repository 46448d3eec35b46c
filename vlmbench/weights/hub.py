"""Repositories of the hub: in huggingface_hub's cache, in its documented layout, so that its tools see the same files.

`models--OWNER--NAME/{blobs/ETAG, refs/REVISION, snapshots/COMMIT/FILE -> ../../blobs/ETAG}`, as in huggingface_hub's
guide "Understand caching". The transfer is plain HTTP, which every repository serves, those in Xet storage included.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from vlmbench.weights.download import PART, Expected, download
from vlmbench.weights.hashes import sha256_of, write_atomically
from vlmbench.weights.source import COMMIT, WEIGHTS, Source, WeightsUnavailableError, matches, required

_PROBE = 5.0  # seconds


class Progress(Protocol):
    """Who is told how far a download is."""

    def begin(self, source: Source, total: int) -> None:
        """A source of `total` bytes follows."""

    def file(self, name: str, size: int) -> None:
        """A file of that source follows."""

    def told(self, position: int) -> None:
        """So many bytes of the file are here."""

    def end(self) -> None:
        """The source is complete, or will not be."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub lists it."""

    name: str
    expected: Expected

    @property
    def etag(self) -> str:
        """The name of its blob in the cache."""
        published = self.expected.sha256 or self.expected.git_sha1 or ""
        return published if re.fullmatch(r"[0-9a-f]{40,64}", published) else self.name.replace("/", "--")


def cache_root() -> Path:
    """Return huggingface_hub's cache; HF_HOME or HF_HUB_CACHE name another."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def repository(source: Source) -> Path:
    """Return the folder of a repository in the cache."""
    return cache_root() / f"{source.repo_type}s--{source.text.replace('/', '--')}"


def cached_commit(source: Source) -> str | None:
    """Return the commit that the cache has for a source's revision."""
    revision = source.revision or "main"
    if COMMIT.fullmatch(revision):
        return revision
    ref = repository(source) / "refs" / revision
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else None


def snapshot(source: Source, commit: str) -> Path:
    """Return the folder of a commit in the cache, whether or not it is there."""
    return repository(source) / "snapshots" / commit


def endpoint() -> str:
    """Return the hub's address; HF_ENDPOINT names another."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def page(source: Source) -> str:
    """Return where people read about a repository."""
    return f"{endpoint()}/{source.name}"


def is_offline() -> bool:
    """Tell whether HF_HUB_OFFLINE, or the like, forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def ask(endpoint: str) -> None:
    """Ask a server once whether it is there: a listing would be tried again for half a minute.

    Raises:
        ConnectionError: It is not.
    """
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=_PROBE)
    except (HTTPError, OSError) as error:
        raise ConnectionError(f"{endpoint} cannot be reached: {error}") from error


def listing(source: Source, commit: str | None = None) -> tuple[str, list[RemoteFile]]:
    """Ask the hub for a repository's commit and its needed files with their published sizes and hashes.

    Raises:
        HfHubHTTPError: The hub refuses.
        WeightsUnavailableError: The repository has none of the files.
    """
    sha, everything = published(source, commit)
    wanted = [file for file in everything if source.wants(file.name) and safe(file.name)]
    gone = [p for p in source.files if required(p) and not any(matches(file.name, p) for file in everything)]
    weights = [file.name for file in everything if PurePosixPath(file.name).suffix in WEIGHTS]
    if gone or (not source.files and not any(PurePosixPath(file.name).suffix in WEIGHTS for file in wanted)):
        raise WeightsUnavailableError(
            f"{source.name} at {sha[:10]} has no file {', '.join(gone) or '*.safetensors'}. Its weights: "
            f"{', '.join(weights) or 'none'}. Name the right ones in `files` of the model's YAML, or another revision."
        )
    return sha, wanted


def published(source: Source, commit: str | None = None) -> tuple[str, list[RemoteFile]]:
    """Ask the hub for a repository's commit and all its files with their published sizes and hashes.

    The names are as the hub gives them, those that are not `safe` included.

    Raises:
        HfHubHTTPError: The hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

    info = HfApi().repo_info(
        source.text, repo_type=source.repo_type, revision=commit or source.revision, files_metadata=True, timeout=30
    )
    siblings: list[RepoSibling] = getattr(info, "siblings", None) or []
    files = [
        RemoteFile(
            item.rfilename,
            Expected(
                item.lfs.size if item.lfs else item.size,
                item.lfs.sha256 if item.lfs else None,
                None if item.lfs else item.blob_id,
            ),
        )
        for item in siblings
    ]
    return str(info.sha), files


def bring(source: Source, commit: str, files: Sequence[RemoteFile], progress: Progress, *, newest: bool) -> Path:
    """Download what the cache lacks of a commit; small files first, so that weights imply what describes them.

    A blob that is here already, of another commit or without its link, is used only if it is as published.

    Args:
        source: The repository.
        commit: Of which commit.
        files: What to bring.
        progress: Who is told.
        newest: Whether the hub has just named this commit for the source's revision, so that the cache may say so.

    Raises:
        WeightsUnavailableError: A file does not have its published hash.
        OSError: The hub refuses, the connection is lost, or the disk is full.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    folder, home = snapshot(source, commit), repository(source)
    locks = cache_root() / ".locks" / home.name
    locks.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(locks / "vlmbench.lock"):
        revision = source.revision or "main"
        if newest and not COMMIT.fullmatch(revision):
            write_atomically(home / "refs" / revision, commit)
        files = sorted(files, key=lambda file: (file.expected.size or 0, file.name))
        missing = [file for file in files if not (folder / file.name).is_file()]
        total = sum(file.expected.size or 0 for file in missing)
        parts = [home / "blobs" / f"{file.etag}{PART}" for file in missing]
        make_room(home, total - sum(part.stat().st_size for part in parts if part.exists()))
        progress.begin(source, total)
        try:
            for file in missing:
                blob = home / "blobs" / file.etag
                progress.file(file.name, file.expected.size or 0)
                if blob.is_file() and not (file.expected.hashed and is_as_published(blob, file.expected)):
                    set_aside(blob)
                if not blob.is_file():
                    url = hf_hub_url(source.text, file.name, repo_type=source.repo_type, revision=commit)
                    download(url, blob, file.expected, headers=build_hf_headers(), told=progress.told)
                _point(folder / file.name, blob)
        finally:
            progress.end()
    return folder


def safe(name: str) -> bool:
    """Tell whether a relative name stays inside the folder that it is put into."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name


def make_room(folder: Path, needed: int) -> None:
    """Refuse a download that the disk cannot hold.

    Raises:
        OSError: ENOSPC, with what is needed and what is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free", str(folder))


def unlike(folder: Path, files: Sequence[RemoteFile]) -> list[str]:
    """Return which of the files that are in `folder` do not have their published size and hash."""
    there = [file for file in files if (folder / file.name).is_file()]
    return [file.name for file in there if not is_as_published(folder / file.name, file.expected)]


def is_as_published(path: Path, expected: Expected) -> bool:
    """Tell whether a file has the published size and hash."""
    if expected.size is not None and path.stat().st_size != expected.size:
        return False
    return not expected.hashed or expected.is_of(path, sha256_of(path) if expected.sha256 else "")


def set_aside(path: Path) -> None:
    """Move a damaged file of the cache out of use, its blob included, so that it is brought anew."""
    blob = path.resolve()
    if path.is_symlink():
        path.unlink()
    if blob.exists():
        os.replace(blob, blob.with_name(blob.name + ".damaged"))


def _point(path: Path, blob: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    try:
        path.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:  # a file system without links
        shutil.move(blob, path)
