"""What a cell needs that is not on this machine: data, weights, a key; and the command that brings it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from vlmbench.catalogue.sources import sources_of
from vlmbench.config import schema
from vlmbench.errors import UserError
from vlmbench.grid.cells import GridCell
from vlmbench.obtain.wanted import needed
from vlmbench.weights.locate import here
from vlmbench.weights.lock import Lock, read_lock
from vlmbench.weights.source import Source

#: Settings of a domain that change nothing of what is brought, and would make one command a cell.
_BY_CELL = tuple(
    f"domain.{key}="
    for key in ("fraction", "fraction_seed", "shots", "corruption", "severity", "corruption_seed", "split", "target")
)


@dataclass(frozen=True)
class Missing:
    """One thing that is not here.

    Attributes:
        kind: `data`, `weights`, the `key` of a hosted model, or a `package`.
        what: Of which domain, model or method.
        reason: Why it is not usable.
        command: What brings it; empty where no command can.
        gib: Size of the download in GiB, as far as it is known.
        sized: Whether all of that size is known.
        by_hand: What a user does first, for what is gated.
    """

    kind: str
    what: str
    reason: str
    command: str = ""
    gib: float = 0.0
    sized: bool = True
    by_hand: str = ""


def missing_data(cell: GridCell, reason: str) -> Missing:
    """Return what is missing of a cell's domain.

    Args:
        cell: The cell.
        reason: Why the domain cannot be built.
    """
    domain = cell.config.domain
    if not isinstance(domain, schema.PublishedDomainConfig):
        return Missing("data", domain.shown_name(), cell.absent or reason)
    wanted = [one for one in domain.downloads if needed(one.when, domain.settings)]
    return Missing(
        "data",
        domain.name,
        reason,
        fetch(cell, "domain", domain.name),
        sum(one.gib for one in wanted),
        bool(wanted) and all(one.gib for one in wanted),
        domain.how_to_get if domain.access == "gated" else "",
    )


def missing_weights(cell: GridCell, reason: str) -> Missing:
    """Return what is missing of a cell's weights.

    Args:
        cell: The cell.
        reason: Why they cannot be loaded.
    """
    model = cell.config.model
    lock = read_lock(cell.config.lock)
    absent = [source for source in sources_of(model).values() if source.remote and not _here(source, lock)]
    gated = any(source.gated for source in absent)
    return Missing(
        "weights",
        model.name,
        reason,
        fetch(cell, "model", model.name) if absent else "",
        sum(source.download_gib for source in absent),
        all(source.download_gib for source in absent),
        model.how_to_get if gated else "",
    )


def missing_else(cell: GridCell) -> Missing:
    """Return what a cell lacks that has its data and weights: a hosted model its key, another a method's package."""
    config = cell.config
    if isinstance(config.model, schema.HostedModelConfig):
        return Missing("key", config.model.name, cell.absent)
    name = config.finetune.name
    return Missing("package", name, cell.absent, f"pip install 'vlmbench[{name}]'")


def fetch(cell: GridCell, group: str, name: str) -> str:
    """Return the command that brings a cell's domain or model, with what the sweep sets of it."""
    words = [word for word in cell.overrides if word.startswith((f"{group}=", f"{group}."))]
    if not any(word.startswith(f"{group}=") for word in words):
        words.insert(0, f"{group}={name}")
    kept = [word for word in words if not word.startswith(_BY_CELL)]
    return f"python -m vlmbench.fetch {shlex.join(kept)}"


def _here(source: Source, lock: Lock) -> bool:
    try:
        folder, gone = here(source, lock)
    except UserError:
        return False
    return folder is not None and not gone
