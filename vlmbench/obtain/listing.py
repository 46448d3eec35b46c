"""From a source to its files: address, size and published hash of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from vlmbench.obtain.records import record
from vlmbench.obtain.wanted import DataUnavailableError, Remote, Wanted
from vlmbench.weights import hub
from vlmbench.weights.address import size_of
from vlmbench.weights.download import Expected
from vlmbench.weights.source import Source, matches

_DIGITS = {"md5": 32, "sha256": 64}


def listed(wanted: Wanted) -> list[Remote]:
    """Ask the server for the files of what is wanted.

    Raises:
        DataUnavailableError: The source or its checksum cannot be read, or a pattern finds no file.
        OSError: The server refuses, or cannot be reached.
    """
    if wanted.source.startswith("doi:"):
        files = [
            (names, Remote(wanted, names[0], url, expected))
            for names, url, expected in record(wanted.source[len("doi:") :])
        ]
    elif wanted.source.startswith("hub:"):
        files = [((remote.name,), remote) for remote in _repository(wanted)]
    elif wanted.source.startswith(("https://", "http://")):
        return [_address(wanted)]
    else:
        raise DataUnavailableError(
            f"downloads: source={wanted.source!r} is none of https://..., doi:... and hub:owner/name. Mend the YAML."
        )
    return _selected(wanted, files)


def named(wanted: Wanted) -> list[str]:
    """Return the names of the files that are wanted, as far as they are known without asking a server."""
    if wanted.source.startswith(("https://", "http://")):
        return [_file_name(wanted)]
    return [pattern for pattern in wanted.files if not set("*?[") & set(pattern)]


def _selected(wanted: Wanted, files: Sequence[tuple[tuple[str, ...], Remote]]) -> list[Remote]:
    def is_meant(names: tuple[str, ...], pattern: str) -> bool:
        return any(matches(name, pattern) for name in names)

    gone = [p for p in wanted.files if not any(is_meant(names, p) for names, _ in files)]
    if gone or not files:
        there = sorted(remote.name for _, remote in files)
        shown = ", ".join(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
        raise DataUnavailableError(
            f"{wanted.source} has no file {', '.join(gone) or 'at all'}. It has: {shown or 'nothing'}. Its owners "
            "published another version, or `files` of the domain's YAML has to be mended."
        )
    kept = [item for names, item in files if not wanted.files or any(is_meant(names, p) for p in wanted.files)]
    for remote in kept:
        _check_safe(remote)
    return kept


def _address(wanted: Wanted) -> Remote:
    kind, _, digits = wanted.checksum.partition(":")
    if wanted.checksum and (
        kind not in _DIGITS or len(digits) != _DIGITS[kind] or set(digits.lower()) - set("0123456789abcdef")
    ):
        raise DataUnavailableError(
            f"downloads: checksum={wanted.checksum!r} of {wanted.source} is neither md5:<32 hex digits> nor "
            "sha256:<64 hex digits>. Mend the domain's YAML."
        )
    if wanted.source.startswith("http:") and not digits:
        raise DataUnavailableError(
            f"{wanted.source} is not encrypted on its way: give its published `checksum` in the domain's YAML, or an "
            "https address."
        )
    name = _file_name(wanted)
    hashes = {kind: digits.lower()} if digits else {}
    remote = Remote(
        wanted, name, wanted.source, Expected(size_of(wanted.source), hashes.get("sha256"), None, hashes.get("md5"))
    )
    _check_safe(remote)
    return remote


def _file_name(wanted: Wanted) -> str:
    given = wanted.files[0] if len(wanted.files) == 1 and not set("*?[") & set(wanted.files[0]) else ""
    try:
        path = unquote(urlsplit(wanted.source).path)
    except ValueError as error:
        raise DataUnavailableError(
            f"downloads: source={wanted.source!r} is no address ({error}). Mend the YAML."
        ) from error
    return given or PurePosixPath(path).name or "file"


def _repository(wanted: Wanted) -> list[Remote]:
    from huggingface_hub import hf_hub_url

    text = wanted.source.removeprefix("hub:")
    hub.ask(hub.endpoint())
    sha, files = hub.published(Source(text, wanted.revision, "dataset"))
    return [
        Remote(
            wanted,
            file.name,
            hf_hub_url(text, file.name, repo_type="dataset", revision=sha),
            file.expected,
            origin=sha,
            hub=True,
        )
        for file in files
        if not file.name.startswith(".git")
    ]


def _check_safe(remote: Remote) -> None:
    # Only the domain's own YAML, not the server, may say where below the root something goes.
    inside = hub.safe(remote.wanted.into) and hub.safe(remote.name)
    if not inside or PurePosixPath(remote.wanted.into, remote.name).parts[0] == ".fetch":
        raise DataUnavailableError(
            f"{remote.wanted.source}: the file {remote.name!r} in the folder {remote.wanted.into!r} would lie outside "
            "the domain's root, or has a name that not every system takes. Nothing was downloaded."
        )
