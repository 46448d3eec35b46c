"""From what a configuration names to local folders, and a name for what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from vlmbench.weights import address, faults, hub
from vlmbench.weights.folder import damage, files_of, lacking
from vlmbench.weights.hashes import sha256_of
from vlmbench.weights.lock import Lock
from vlmbench.weights.progress import TransferProgress
from vlmbench.weights.source import ASSETS, PACKAGE, Source, WeightsUnavailableError

MAIN = ""  # the key of a model's own files among those of its companions


def locate_all(sources: Mapping[str, Source], lock: Lock, *, bring: bool = True) -> dict[str, str]:
    """Return the local folder of each source; see `locate`."""
    return {name: locate(source, lock, bring=bring) for name, source in sources.items()}


def locate(source: Source, lock: Lock | None = None, *, bring: bool = True) -> str:
    """Return the local folder with a source's files; what is not here is downloaded.

    The network is asked only for what is not here. What is here is checked: nothing that a checkpoint needs may be
    missing, weights must be what their names and sizes say, and what the lock file names must be unchanged.

    Args:
        source: What the configuration names.
        lock: The lock file; None locks nothing.
        bring: Whether what is not here may be downloaded.

    Returns:
        An absolute path.

    Raises:
        WeightsUnavailableError: The files are not here and cannot be fetched, or are damaged.
        LockError: They are not the locked ones.
    """
    lock = lock or Lock(Path())
    entry = lock.entry(source) or {}
    folder, gone = here(source, lock)
    if source.kind == "address" and folder is not None and address.is_other(source):
        fault = f"holds a file of SHA-256 {address.noted(source)['sha256']}, not the published {source.sha256}"
        raise WeightsUnavailableError(faults.damaged(source, str(folder), fault))
    if folder is None or gone:
        if not source.remote:
            raise WeightsUnavailableError(faults.incomplete(source, str(folder), gone))
        if not bring or hub.is_offline():
            reason = "HF_HUB_OFFLINE is set" if bring else "nothing is downloaded here"
            partly = faults.incomplete(source, str(folder), gone) + " " if folder else ""
            raise WeightsUnavailableError(partly + faults.absent(source, reason))
        with faults.explained(source):
            if source.kind == "address":
                archive = entry.get("archive", {}).get("sha256")
                folder = address.bring(source, TransferProgress(), archive)
            else:
                hub.ask(hub.endpoint())
                commit, files = hub.listing(source, entry.get("commit"))
                folder = hub.bring(source, commit, files, TransferProgress(), newest=not entry)
        if gone := lacking(folder, source):
            raise WeightsUnavailableError(faults.incomplete(source, str(folder), gone))
    for name in files_of(folder, source):
        if fault := damage(folder / name):
            raise WeightsUnavailableError(faults.damaged(source, str(folder / name), fault))
    lock.check(source, folder)
    return str(folder.absolute())


def here(source: Source, lock: Lock | None = None) -> tuple[Path | None, list[str]]:
    """Return where a source's files are on this machine, without asking the network, and what they lack.

    Returns:
        The folder, None where there is none yet; and the missing files, empty where all are there.

    Raises:
        WeightsUnavailableError: A shipped checkpoint or a local folder that does not exist.
    """
    if source.kind == "package":
        folder = ASSETS / source.text.removeprefix(PACKAGE)
        if not (folder / "config.json").is_file():
            shipped = sorted(path.name for path in ASSETS.glob("*") if (path / "config.json").is_file())
            raise WeightsUnavailableError(
                f"model.source={source.text!r} is not shipped. Shipped: {', '.join(shipped)}."
            )
    elif source.kind == "folder":
        folder = Path(source.text).expanduser()
        if not folder.is_dir():
            raise WeightsUnavailableError(
                f"{source.text!r} is no folder. Give that of a checkpoint, a hub id, or package:NAME."
            )
    elif source.kind == "address":
        found = address.present(source)
        if found is not None and address.is_other(source):
            return found, [f"the file of SHA-256 {source.sha256}"]
        return found, lacking(found, source) if found else []
    else:
        entry = lock.entry(source) if lock else None
        commit = entry["commit"] if entry else hub.cached_commit(source)
        if commit is None or not hub.snapshot(source, commit).is_dir():
            return None, []
        folder = hub.snapshot(source, commit)
        locked = [name for name in (entry or {}).get("files", {}) if not source.files or source.wants(name)]
        gone = lacking(folder, source)
        return folder, [*gone, *(name for name in locked if name not in gone and not (folder / name).is_file())]
    return folder, lacking(folder, source)


def weights_digest(sources: Mapping[str, Source], folders: Mapping[str, str]) -> str:
    """Return a name for a model's weights and companions that changes when their content does.

    Args:
        sources: By name, the model's own under `MAIN`.
        folders: What `locate_all` returned for them.
    """
    digests = {name: content_digest(source, folders[name]) for name, source in sources.items()}
    rest = "".join(f"+{name}={digests[name]}" for name in sorted(digests) if name != MAIN)
    return digests.get(MAIN, "") + rest


def content_digest(source: Source, folder: str) -> str:
    """Return the name of one source's content.

    A repository of the hub is named by its id and commit, which the hub derives from the content; everything else by
    the SHA-256 of its weights, configuration, tokenizer and processor.

    Args:
        source: The source.
        folder: What `locate` returned for it.
    """
    if source.kind == "hub":
        return f"{source.name}@{Path(folder).name}"
    digest = hashlib.sha256()
    for name in files_of(Path(folder), source):
        digest.update(name.encode())
        digest.update(bytes.fromhex(sha256_of(Path(folder) / name)))
    return f"sha256:{digest.hexdigest()}"
