"""One place that files come from, and which of its files count."""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vlmbench.errors import UserError

PACKAGE = "package:"
ASSETS = Path(__file__).resolve().parents[1] / "assets"
#: What a checkpoint in the hub's format is made of; older formats are named by `files`, one by one.
WANTED = {".json", ".txt", ".model", ".jinja", ".safetensors", ".tiktoken"}
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
COMMIT = re.compile(r"[0-9a-f]{40}")


class WeightsUnavailableError(UserError):
    """The weights are neither on this machine nor reachable, or damaged; the message says how to get them."""


@dataclass(frozen=True)
class Source:
    """One place that files come from.

    Attributes:
        text: `package:NAME`, a local folder, a hub id, or the address of one file or zip archive.
        revision: Commit, tag or branch of the hub repository.
        repo_type: `model` or `dataset`.
        files: Patterns of the files that are needed; empty takes what a checkpoint has.
        sha256: Of the file behind an address, where it was published.
        download_gib: Size of the download in GiB, for messages.
        gated: Whether the owners ask for an account and a consent.
        how_to_get: What a user does to be given the files.
    """

    text: str
    revision: str | None = None
    repo_type: str = "model"
    files: tuple[str, ...] = ()
    sha256: str | None = None
    download_gib: float = 0.0
    gated: bool = False
    how_to_get: str = ""

    @property
    def kind(self) -> str:
        """`package`, `address`, `folder` or `hub`."""
        if self.text.startswith(PACKAGE):
            return "package"
        if self.text.startswith(("https://", "http://")):
            return "address"
        looks_local = self.text.startswith((".", "/", "~")) or self.text.count("/") > 1
        return "folder" if looks_local or Path(self.text).expanduser().is_dir() else "hub"

    @property
    def name(self) -> str:
        """What the source is called in messages and in the lock file."""
        return f"datasets/{self.text}" if self.kind == "hub" and self.repo_type == "dataset" else self.text

    @property
    def remote(self) -> bool:
        """Whether its files have to be downloaded."""
        return self.kind in ("hub", "address")

    def wants(self, name: str) -> bool:
        """Tell whether a file of the repository is needed; `name` is relative, with forward slashes.

        Without patterns those at the top level count: folders below hold other formats of the same weights.
        """
        if self.files:
            return any(matches(name, pattern) for pattern in self.files)
        return "/" not in name and not name.startswith(".") and PurePosixPath(name).suffix in WANTED


def matches(name: str, pattern: str) -> bool:
    """Tell whether a relative name is one that a pattern of `files` means; `*` stays within one folder."""
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


def required(pattern: str) -> bool:
    """Tell whether a pattern of `files` must find something: all but those such as `*.txt`, which ask for extras."""
    return not set("*?[") & set(pattern) or PurePosixPath(pattern).suffix not in WANTED - WEIGHTS


def cache_dir() -> Path:
    """Return where vlmbench keeps what it downloads from addresses, and hashes: VLMBENCH_CACHE names another place."""
    return Path(os.environ.get("VLMBENCH_CACHE") or "~/.cache/vlmbench").expanduser()
