"""One file over HTTP: resumed where it was cut, even by a kill, and hashed before it takes its place.

huggingface_hub gives each download a temporary file of its own and deletes it when it fails, so that a shard of 5 GB
begins anew after a dropped connection that outlasts its retries or a killed process. Here the part that arrived stays.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmbench.weights.hashes import digest_of, git_blob_sha1, remember
from vlmbench.weights.source import WeightsUnavailableError

PART = ".vlmbench.incomplete"
_VERSION = ".vlmbench.version"  # the server's name of the version that a part is of
_TRIES = 5
_TIMEOUT = 30.0  # seconds without a byte
_LONGEST = 60.0  # seconds that a server may ask to be left alone
LATER = frozenset({408, 429, 500, 502, 503, 504})  # answers that mean: ask again

Told = Callable[[int], None]


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is downloaded.

    Attributes:
        size: In bytes.
        sha256: Published SHA-256.
        git_sha1: Published name of the file in git, where there is no SHA-256.
        md5: Published MD5, where there is neither; it tells damage, not forgery.
    """

    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    md5: str | None = None

    @property
    def hashed(self) -> bool:
        """Whether a hash tells if the file is the right one."""
        return self.published is not None

    @property
    def published(self) -> str | None:
        """The published hash that a file is compared with."""
        return self.sha256 or self.git_sha1 or self.md5

    def is_of(self, path: Path, sha256: str) -> bool:
        """Tell whether a file whose SHA-256 is known has the published hash; true where none is published."""
        if self.sha256 is not None:
            return sha256 == self.sha256.lower()
        if self.git_sha1 is not None:
            return git_blob_sha1(path.read_bytes()) == self.git_sha1
        return self.md5 is None or digest_of(path, "md5") == self.md5.lower()


def download(url: str, target: Path, expected: Expected, *, headers: Mapping[str, str], told: Told) -> str:
    """Bring a file to `target` and return its SHA-256.

    What arrived of an interrupted download is kept beside the target and continued by an HTTP range request; where no
    hash is published, only if the server says that the file is still the same version. A connection
    that breaks is tried again, `_TRIES` times without a new byte.

    Args:
        url: Where it is.
        target: Where it goes; replaced only by a whole file with the right hash.
        expected: What it must be.
        headers: Of the request.
        told: Called with how many bytes of the file are here, at the start and after each chunk.

    Raises:
        WeightsUnavailableError: The hash, or without one the size, is another; the file is moved aside.
        OSError: The server refuses, or the disk is full.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART)
    tries, before = _TRIES, -1
    while True:
        try:
            _stream(url, part, expected, headers, told)
            return _settle(url, part, target, expected)
        except HTTPError as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code not in LATER:
                raise
            size = part.stat().st_size if part.exists() else 0
            tries = _TRIES if size > before else tries - 1
            before = max(before, size)
            if not tries:
                raise
            time.sleep(max(min(2 ** (_TRIES - tries) * 0.25, 8), _asked_for(error)))


def _asked_for(error: Exception) -> float:
    """Return the seconds after which a busy server wants to be asked again; 0 where it does not say."""
    answer = getattr(error, "response", None)
    after = answer.headers.get("Retry-After", "") if answer is not None else ""
    return min(float(after), _LONGEST) if after.isdecimal() else 0.0


def _stream(url: str, part: Path, expected: Expected, headers: Mapping[str, str], told: Told) -> None:
    from huggingface_hub.utils import get_session, hf_raise_for_status

    note = _version_of(part)
    version = note.read_text(encoding="utf-8") if note.is_file() and not expected.hashed else ""
    have = part.stat().st_size if part.exists() else 0
    if (expected.size is not None and have > expected.size) or not (expected.hashed or version):
        have = 0
    told(have)
    if have and have == expected.size:
        return
    asked = {**headers, "Accept-Encoding": "identity"}
    if have:
        asked |= {"Range": f"bytes={have}-", **({"If-Range": version} if version else {})}
    with get_session().stream("GET", url, headers=asked, timeout=_TIMEOUT, follow_redirects=True) as answer:
        place = answer.headers.get("Content-Range", "")
        if answer.status_code == 416 and expected.hashed and place == f"bytes */{have}":
            return  # nothing beyond what is here; the hash tells whether it is right
        # A part of what was encoded on its way cannot be decoded, nor does it begin where the decoded bytes end.
        encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
        unfit = answer.status_code == 206 and (encoded or not re.match(rf"bytes {have}-", place))
        if have and (unfit or answer.status_code == 416):
            part.unlink()
            return _stream(url, part, expected, headers, told)
        hf_raise_for_status(answer)
        if url.startswith("https:") and answer.url.scheme == "http" and not expected.hashed:
            raise OSError(f"{url} leads to {answer.url}, which is not encrypted, and no checksum is published")
        if unfit:
            raise OSError(f"{url} answers with a part of the file ({place or 'unnamed'}) where the whole was asked for")
        if answer.status_code != 206:
            have = 0
        if not have:
            part.unlink(missing_ok=True)  # before the note: that of the new version never lies beside bytes of the old
            note.write_text(_version(answer.headers), encoding="utf-8")
        with part.open("r+b" if have else "wb") as handle:
            handle.truncate(have)
            handle.seek(have)
            for chunk in answer.iter_bytes():
                handle.write(chunk)
                have += len(chunk)
                told(have)


def _version_of(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(PART) + _VERSION)


def _version(headers: Mapping[str, str]) -> str:
    """Return what If-Range may name (RFC 9110, section 13.1.5): a strong ETag, else the time of the last change."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _settle(url: str, part: Path, target: Path, expected: Expected) -> str:
    found = digest_of(part, "sha256")
    wrong = not expected.is_of(part, found)
    size = part.stat().st_size
    short = not expected.hashed and expected.size is not None and size != expected.size
    _version_of(part).unlink(missing_ok=True)
    if wrong or short:
        promised = f"size {expected.size:,}" if short else f"hash {expected.published}"
        aside = target.with_name(target.name + ".damaged")
        os.replace(part, aside)
        raise WeightsUnavailableError(
            f"{url} does not have the published {promised}: {size:,} bytes with SHA-256 {found} arrived. "
            f"They were moved to {aside} and are not used; run the same command again."
        )
    os.replace(part, target)
    remember(target, found, own=True)
    return found


def disk_full(error: BaseException) -> bool:
    """Tell whether an error, or what caused it, is a full disk or quota."""
    chain: Any = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        chain = chain.__cause__ or chain.__context__
    return False
