"""What a user is told when weights cannot be had: one line with what is wrong, where, and what to do."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vlmbench.errors import UserError
from vlmbench.weights.download import disk_full
from vlmbench.weights.hub import cache_root, is_offline, page
from vlmbench.weights.source import Source, WeightsUnavailableError, cache_dir

FETCH = "python -m vlmbench.fetch with the same model="


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turn whatever a download raises inside the block into one line that says how to mend it.

    Raises:
        WeightsUnavailableError: Instead of what the block raised for want of files, network, consent or room.
    """
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        yield
    except (OSError, HTTPError, HFValidationError) as error:
        raise WeightsUnavailableError(_refusal(error, source)) from error


@contextmanager
def loading(source: Source, folder: str, loader: str) -> Iterator[None]:
    """Turn what a loader raises into one line that names the folder; whatever it is, the files are not what it reads.

    Args:
        source: Where the files come from.
        folder: Where they are.
        loader: The loader's name.

    Raises:
        WeightsUnavailableError: Instead of the block's error, unless that is one for a user already or memory is full.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise WeightsUnavailableError(
            f"A file of weights in {folder} is a pickle that holds more than tensors, or is damaged. Nothing in it was "
            f"executed.{_mend(source) or ' Do not use it; get the release again from its owners.'}"
        ) from error
    except OSError as error:
        raise WeightsUnavailableError(
            f"The checkpoint in {folder} cannot be loaded: {_first_line(error)} A checkpoint in transformers' format "
            f"has config.json, the weights, a tokenizer and a preprocessor or processor configuration.{_mend(source)}"
        ) from error
    except Exception as error:
        if "out of memory" in str(error):
            raise
        raise WeightsUnavailableError(
            f"The loader {loader} cannot read the checkpoint in {folder}: {_first_line(error)} Check that model.source "
            "is the model that model.loader is for; the record has the whole error."
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return f"{text.rstrip('.:! ')}."


def incomplete(source: Source, folder: str, gone: Sequence[str]) -> str:
    """Return the line for a checkpoint of which a part is missing."""
    shown = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
    return f"The checkpoint in {folder} is incomplete: it lacks {shown}.{_mend(source) or ' Copy it again.'}"


def damaged(source: Source, path: str, fault: str) -> str:
    """Return the line for a file that is not what it should be."""
    mend = " It is not used; copy the file again, or set model.source to another checkpoint."
    return f"{path} {fault}.{_mend(source) or mend}"


def absent(source: Source, reason: str) -> str:
    """Return the line for weights that are neither here nor within reach."""
    pin = f" --revision {source.revision}" if source.revision else ""
    kind = " --repo-type dataset" if source.repo_type == "dataset" else ""
    size = f" ({source.download_gib:g} GiB)" if source.download_gib else ""
    where = cache_dir() if source.kind == "address" else cache_root()
    consent = f"{told_how(source)} Then " if source.gated else "On a machine with network, "
    by_hand = f" (or `hf download {source.text}{pin}{kind}`)" if source.kind == "hub" else ""
    return (
        f"The weights of {source.name}{size} are neither in the cache ({where}) nor reachable ({reason}). {consent}run "
        f"{FETCH}{by_hand} and copy the cache here (HF_HOME names it; VLMBENCH_CACHE that of addresses), or set "
        "model.source to a folder that holds the checkpoint."
    )


def _refusal(error: Exception, source: Source) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import get_token

    if disk_full(error):
        return (
            f"The disk of the cache ({cache_dir() if source.kind == 'address' else cache_root()}) is full: "
            f"{error}. Make room, or let HF_HOME (VLMBENCH_CACHE for addresses) name a place on another disk; what "
            f"arrived of {source.name} is kept and continued."
        )
    if isinstance(error, HFValidationError):
        return f"model.source={source.text!r} is no folder that exists, and no hub id either: {error}"
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{source.name} has no revision {source.revision or 'such as the lock file names'}. Take a commit, tag or "
            f"branch of {page(source)}/commits/main for model.revision, or leave it out."
        )
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError) and not source.gated:
        return (
            f"There is no repository {source.name} at {constants.ENDPOINT}, or it is private and the token here has no "
            "access. Check model.source, or set it to a folder that holds the checkpoint."
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{source.name} has no such file any more: {str(error).splitlines()[0]} Check `files` and `revision`."
    if source.kind == "hub" and (isinstance(error, GatedRepoError | RepositoryNotFoundError) or status in (401, 403)):
        if get_token():
            return (
                f"{source.name} is gated, and the account of the token here has no access: "
                f"{told_how(source)} The token must be allowed to read gated repositories."
            )
        return f"{source.name} is gated, and no token is set here. {told_how(source)}"
    if status:
        return f"{source.name}: the server answers {status} for {error.response.url}. Try later, or check the address."  # type: ignore[attr-defined]
    if is_offline():
        return absent(source, "HF_HUB_OFFLINE is set")
    return absent(source, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'}")


def _mend(source: Source) -> str:
    return f" {FETCH} mends it." if source.remote else ""


def told_how(source: Source) -> str:
    """Return, as a sentence, what a user does to be given gated weights."""
    text = source.how_to_get or (
        f"accept the terms on {page(source)} with your account, then run `hf auth login` or set HF_TOKEN to a token "
        "of that account"
    )
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
