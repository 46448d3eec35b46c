"""What a user is told when data cannot be had: one line with what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmbench.obtain.wanted import DataUnavailableError
from vlmbench.weights.download import disk_full
from vlmbench.weights.hub import is_offline

_LONG = 200  # characters of a path that are shown


@contextmanager
def explained(name: str, root: Path, how_to_get: str) -> Iterator[None]:
    """Turn what a download raises inside the block into one line that says how to mend it.

    Args:
        name: Of the domain.
        root: Its folder.
        how_to_get: What a user does to be given it, or where its owners describe it; may be empty.

    Raises:
        DataUnavailableError: Instead of what the block raised for want of network, permission or room.
    """
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        yield
    except (OSError, HTTPError, HFValidationError) as error:
        raise DataUnavailableError(_refusal(error, name, root, how_to_get)) from error


def absent(name: str, root: Path, reason: str) -> str:
    """Return the line for data that are neither here nor within reach."""
    return (
        f"The data are not complete in {root}, and not reachable ({reason}). On a machine with network run "
        f"python -m vlmbench.fetch domain={name} and copy that folder here; domain.root or VLMBENCH_DATA may name "
        "another place. What arrived is kept and continued."
    )


def _refusal(error: Exception, name: str, root: Path, how_to_get: str) -> str:
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    get = f" {how_to_get[:1].upper()}{how_to_get[1:].rstrip('.')}." if how_to_get else ""
    first = str(error).splitlines()[0][:200].rstrip(".:! ") if str(error) else "no answer"
    if disk_full(error):
        return (
            f"The disk of {root} is full: {first}. Make room, or let domain.root or VLMBENCH_DATA name a folder on "
            "another disk; what arrived is kept and continued."
        )
    if isinstance(error, HFValidationError):
        return f"The domain's YAML names a repository that the hub cannot have: {first}."
    if isinstance(error, RevisionNotFoundError):
        return f"The hub has no such revision: {first}. Mend `revision` of the domain's YAML."
    answer = getattr(error, "response", None)
    status, url = (answer.status_code, answer.url) if answer is not None else (0, "")
    if status in (401, 403):
        hidden = isinstance(error, RepositoryNotFoundError)
        why = "there is no such repository, or access" if hidden else "access"
        return (
            f"The server answers {status} for {url}: {why} has to be granted first (for the hub: `hf auth login`, or "
            f"HF_TOKEN).{get}"
        )
    if status in (404, 410):
        return (
            f"The server answers {status} for {url}: what the domain's YAML names is not there any more, or was "
            f"renamed.{get} Files that you bring yourself into {root} count as well."
        )
    if status:
        return f"The server answers {status} for {url}. Run the same command later; what arrived is kept.{get}"
    if isinstance(error, OSError) and error.filename is not None:  # of the disk, not of the network
        path = str(error.filename)
        shown = path if len(path) <= _LONG else f"{path[:_LONG]}..."
        return (
            f"{shown} cannot be written ({error.strerror}). Let domain.root or VLMBENCH_DATA name another "
            "folder, where you may write."
        )
    if is_offline():
        return absent(name, root, "HF_HUB_OFFLINE is set")
    return absent(name, root, f"{type(error).__name__}: {first}")
