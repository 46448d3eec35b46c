"""Where a checkpoint's files are, what they hash to, and what to tell a user who does not have them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmbench.errors import UserError

DIGESTED = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt"}
# What transformers looks for, whole or as the index of shards.
WEIGHT_FILES = tuple(
    f"{stem}{suffix}{index}"
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin"))
    for index in ("", ".index.json")
)
ASSETS = Path(__file__).resolve().parents[1] / "assets"


class WeightsUnavailableError(UserError):
    """The weights are neither on this machine nor reachable; the message says how to get them."""


def locate(source: str, revision: str | None, download_gib: float, *, gated: bool = False) -> str:
    """Return what `from_pretrained` takes: a folder, or a hub id that is in the cache or within reach.

    Args:
        source: `package:NAME`, a local folder, or a hub id.
        revision: Commit, tag or branch of the hub repository.
        download_gib: Size of the download in GiB, for the message.
        gated: Whether the owners ask for an account and a consent.

    Raises:
        WeightsUnavailableError: The files are not here and the hub cannot be reached.
    """
    if source.startswith("package:"):
        folder = ASSETS / source.removeprefix("package:")
        if not (folder / "config.json").is_file():
            shipped = sorted(path.name for path in ASSETS.glob("*") if (path / "config.json").is_file())
            raise WeightsUnavailableError(f"model.source={source!r} is not shipped. Shipped: {', '.join(shipped)}.")
        return str(folder)
    if Path(source).expanduser().is_dir():
        return str(Path(source).expanduser())
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    with explained(source, revision, download_gib, gated=gated):
        cached = {
            name
            for name in ("config.json", *WEIGHT_FILES)
            if isinstance(try_to_load_from_cache(source, name, revision=revision), str)
        }
        if "config.json" not in cached or len(cached) == 1:
            if constants.HF_HUB_OFFLINE:
                raise FileNotFoundError("HF_HUB_OFFLINE is set")
            _ask(constants.ENDPOINT)
            hf_hub_download(source, "config.json", revision=revision)
    return source


@contextmanager
def explained(source: str, revision: str | None, download_gib: float, *, gated: bool = False) -> Iterator[None]:
    """Turn a failed download or an incomplete folder inside the block into one line that says how to mend it.

    Raises:
        WeightsUnavailableError: Whatever the block raised for want of files.
    """
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (OSError, HFValidationError) as error:
        if source.startswith("package:") or Path(source).expanduser().is_dir():
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WeightsUnavailableError(
                f"The checkpoint in {source} cannot be loaded: {reason} A checkpoint in transformers' format has "
                "config.json, the weights, a tokenizer and a preprocessor or processor configuration."
            ) from error
        pin = f" --revision {revision}" if revision else ""
        consent = "accept the terms on its page and run `hf auth login`, then " if gated else ""
        raise WeightsUnavailableError(
            f"The weights of {source} ({download_gib:g} GiB) are neither in the cache ({HF_HUB_CACHE}) nor reachable "
            f"({type(error).__name__}). On a machine with network, {consent}run `hf download {source}{pin}` and copy "
            "the cache here (HF_HOME names it), or set model.source to a folder that holds the checkpoint."
        ) from error


def weights_digest(located: str, revision: str | None) -> str:
    """Return a name for the weights that changes when they do.

    A local checkpoint is named by the SHA-256 of its weights, configuration, tokenizer and processor, a hub one by its
    id and the commit in the cache, which the hub derives from the content.

    Args:
        located: What `locate` returned.
        revision: As given to `locate`.
    """
    folder = Path(located)
    if not folder.is_dir():
        return f"{located}@{_cached_commit(located, revision or 'main')}"
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in DIGESTED):
        digest.update(path.name.encode())
        with path.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def _ask(endpoint: str) -> None:
    """Ask the hub once whether it is there: a download would retry for half a minute before it gives up."""
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=10)
    except Exception as error:
        raise ConnectionError(f"{endpoint}: {error}") from error


def _cached_commit(repo_id: str, revision: str) -> str:
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub.constants import HF_HUB_CACHE

    ref = Path(os.fspath(HF_HUB_CACHE)) / f"models--{repo_id.replace('/', '--')}" / "refs" / revision
    return ref.read_text(encoding="utf-8").strip()
