"""What is to be brought, and the files that a server offers of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vlmbench.errors import UserError
from vlmbench.weights.download import Expected


class DataUnavailableError(UserError):
    """A dataset is neither here nor to be had, or is not what it should be; the message says what to do."""


@dataclass(frozen=True)
class Wanted:
    """One thing to bring; the fields are those of `config.schema.DownloadConfig`.

    Attributes:
        source: `https://...`, `doi:...` or `hub:owner/name`.
        files: Patterns of the files that are needed; empty takes all. For an address: the name of its file, where the
            address does not end in it.
        revision: Commit of the hub repository.
        checksum: `md5:...` or `sha256:...` of the file behind an address.
        into: Folder below the root.
        unpack: Whether archives are unpacked.
        gib: Size of the download in GiB, for what no server tells.
    """

    source: str
    files: tuple[str, ...] = ()
    revision: str | None = None
    checksum: str = ""
    into: str = "."
    unpack: bool = True
    gib: float = 0.0

    @property
    def key(self) -> str:
        """A name for this in the note of what was brought, the same as long as the same is asked for."""
        asked = {name: value for name, value in asdict(self).items() if name != "gib"}
        return _key(json.dumps(asked, sort_keys=True))


@dataclass(frozen=True)
class Remote:
    """One file that a server has.

    Attributes:
        wanted: What it is a part of.
        name: Relative, with forward slashes.
        url: Where it is.
        expected: Its published size and hash, as far as there are any.
        origin: The commit, or "".
        hub: Whether the hub's token goes with the request.
    """

    wanted: Wanted
    name: str
    url: str
    expected: Expected
    origin: str = ""
    hub: bool = False

    @property
    def key(self) -> str:
        """A name for the file in the note, and of its folder below `.fetch`."""
        wanted = self.wanted
        return _key(
            f"{wanted.source}\n{wanted.revision}\n{wanted.checksum}\n{wanted.into}\n{wanted.unpack}\n{self.name}"
        )


def needed(when: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Tell whether a download is for these settings of a domain; a list in `when` names several values."""
    for key, value in when.items():
        values = value if isinstance(value, list | tuple) else [value]
        if str(settings.get(key)) not in {str(one) for one in values}:
            return False
    return True


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
