"""Whether a model's files are on this machine, without asking the network."""

from __future__ import annotations

from vlmbench.catalogue.sources import sources_of
from vlmbench.config import schema
from vlmbench.errors import UserError
from vlmbench.weights import hub
from vlmbench.weights.locate import here
from vlmbench.weights.lock import Lock


def presence(model: schema.ModelConfig, lock: Lock) -> str:
    """Return `shipped`, `complete`, `partial`, `absent`, or `hosted` for a model behind an endpoint.

    Args:
        model: Its configuration.
        lock: The lock file; its commits are the ones that count.
    """
    sources = sources_of(model)
    if not sources:
        return "hosted"
    if all(source.kind == "package" for source in sources.values()):
        return "shipped"
    found = set()
    for source in sources.values():
        try:
            folder, gone = here(source, lock)
        except UserError:
            found.add("absent")
            continue
        if folder is None and source.kind == "hub":
            # An older commit, or the first files of a download that has not reached the listing's end.
            blobs = hub.repository(source) / "blobs"
            found.add("partial" if blobs.is_dir() and any(blobs.iterdir()) else "absent")
        else:
            found.add("absent" if folder is None else "partial" if gone else "complete")
    return found.pop() if len(found) == 1 else "partial"
