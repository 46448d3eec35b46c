"""A cell before it runs: its domain built, its weights found, its name known; without torch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vlmbench.cell.domain import build_domain
from vlmbench.cell.naming import label_of, name_of, name_weights
from vlmbench.config import schema
from vlmbench.domains.base import Domain, DomainError
from vlmbench.records.store import RECORD, read_record


@dataclass(frozen=True)
class Prepared:
    """A cell whose identity is known, before anything heavy is imported.

    Attributes:
        config: The cell.
        domain: Its domain, not yet audited.
        weights: Digest of the pretrained weights.
        identity: 64 hex digits.
        folder: The cell's own directory.
        started: When, in UTC.
    """

    config: schema.CellConfig
    domain: Domain
    weights: str
    identity: str
    folder: Path
    started: str

    @property
    def label(self) -> str:
        """A short name for people."""
        return label_of(self.config)

    @property
    def done(self) -> bool:
        """Whether the record is there and says so."""
        return (self.folder / RECORD).exists() and read_record(self.folder)["status"] == "done"


def prepare(config: schema.CellConfig) -> Prepared:
    """Build the domain, find the weights, and name the cell.

    Raises:
        DomainError: The data are not as configured.
        WeightsUnavailableError: The weights are not here and cannot be fetched.
    """
    started = now()
    weights = name_weights(config.model, config.lock)
    domain = build_domain(config.domain, config.task.name)  # type: ignore[arg-type]
    if not domain.split("train") and config.finetune.name != "zero_shot":
        raise DomainError(
            f"{domain.name} has test rows alone, and finetune={config.finetune.name} trains. Take finetune=zero_shot, "
            "or train elsewhere and take the cell there: python -m vlmbench.evaluate cell=... domain=..."
        )
    name = name_of(config, domain.fingerprint, weights)
    return Prepared(config, domain, weights, name.identity, name.folder, started)


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
