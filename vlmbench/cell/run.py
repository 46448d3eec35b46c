"""The flow of one cell: domain, model, finetune, fit, predict, record."""

from __future__ import annotations

import dataclasses
import shutil
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlmbench.cell.crew import Crew, joined
from vlmbench.cell.domain import audited, build_domain
from vlmbench.cell.naming import label_of, name_of, name_weights
from vlmbench.config import schema
from vlmbench.config.exposure import exposure
from vlmbench.domains.base import Domain, DomainError
from vlmbench.errors import UserError
from vlmbench.records.claim import ClaimedError, claim
from vlmbench.records.identity import digest, relevant
from vlmbench.records.store import RECORD, read_record, write_record

CHECKPOINTS = "checkpoints"  # of an unfinished training; not needed once what trained is saved


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


def run_prepared(cell: Prepared) -> dict[str, Any]:
    """Run a cell to its record; a failure is a record too.

    Returns:
        The record. A cell that is done already is not run again, see `rescored`.

    Raises:
        ClaimedError: Another process is at work on the same cell.
    """
    with joined(cell.config.trainer) as crew:
        if not crew.rank.is_zero:
            return _follow(cell, crew)
        try:
            with claim(cell.folder):
                record = _lead(cell, crew)
        except ClaimedError as error:
            crew.stand_down(str(error))
            raise
        crew.publish(record)
        return record


def _lead(cell: Prepared, crew: Crew) -> dict[str, Any]:
    if cell.done:
        return rescored(cell)

    def failed(error: dict[str, Any]) -> dict[str, Any]:
        record = {**_header(cell), "status": "failed", "metrics": {}, "error": error, "finished": now()}
        write_record(cell.folder, record)
        return record

    try:
        with crew.watched(failed):
            record = _compute(cell, crew)
    except SystemExit as stop:  # Lightning's way of passing Ctrl-C on
        raise KeyboardInterrupt from stop
    except Exception as error:  # noqa: BLE001 - whatever went wrong belongs into the record
        return failed(crew.fail(describe(error)))
    shutil.rmtree(cell.folder / CHECKPOINTS, ignore_errors=True)
    return record


def _follow(cell: Prepared, crew: Crew) -> dict[str, Any]:
    """Work with rank 0 and return its record; a fault that keeps it from making one is returned as a record too."""
    error = {"type": "RankError", "message": "rank 0 ended without a record", "traceback": "", "mendable": False}
    try:
        if crew.begins(cell.identity):
            from vlmbench.cell.work import work
            from vlmbench.reporting.dashboards import Dashboard

            none = Dashboard(schema.LoggerConfig(), {}, cell.folder, cell.label)
            with crew.watched(lambda error: None):
                work(cell.config, cell.domain, cell.folder, cell.label, none)
    except ClaimedError:
        raise
    except Exception as fault:  # noqa: BLE001 - rank 0 writes it into the record
        error = crew.fail(describe(fault))
    record = crew.record()
    return record or {**_header(cell), "status": "failed", "metrics": {}, "error": error, "finished": now()}


def _compute(cell: Prepared, crew: Crew) -> dict[str, Any]:
    from vlmbench.cell.work import work
    from vlmbench.reporting.dashboards import Dashboard

    domain = audited(cell.domain, hashes=cell.config.domain.audit_hashes)
    crew.go(cell.identity)
    header = _header(cell)
    with Dashboard(cell.config.logger, header, cell.folder, cell.label) as dashboard:
        record = {**header, **work(cell.config, domain, cell.folder, cell.label, dashboard), "status": "done"}
        record["finished"] = now()
        # Before anything is uploaded: a dashboard that is down must not cost a result.
        write_record(cell.folder, record)
        dashboard.summarise(record)
    return record


def rescored(cell: Prepared) -> dict[str, Any]:
    """Return the record of a finished cell, brought up to date with what is asked and said of it now.

    Metrics are computed anew from the predictions where other intervals are asked for; role, pair, exposure and the
    like follow the YAML files, whose mistakes are mended after the fact too.
    """
    record = read_record(cell.folder)
    asked, task = cell.config.task, record["config"]["task"]
    if asked.name != "pretrain" and (task["resamples"], task["confidence"]) != (asked.resamples, asked.confidence):
        from vlmbench.cell.predictions import score
        from vlmbench.records.store import read_predictions

        record |= score(
            read_predictions(cell.folder),
            asked.name,
            multi_label=cell.domain.multi_label,
            resamples=asked.resamples,
            confidence=asked.confidence,
        )
    header = _header(cell)
    config = record["config"] | {key: header["config"][key] for key in ("model", "task", "domain")}
    said = facts_of(cell.config.model, cell.config.domain) | {"primary_metric": asked.primary_metric}
    updated = record | said | {"config": config}
    if updated != read_record(cell.folder):
        write_record(cell.folder, updated)
    return updated


def _header(cell: Prepared) -> dict[str, Any]:
    config = dataclasses.asdict(cell.config)
    return {
        "identity": cell.identity,
        "kind": "cell",
        "cell": {
            "model": cell.config.model.name,
            "task": cell.config.task.name,
            "finetune": cell.config.finetune.name,
            "scope": getattr(cell.config.finetune, "scope", ""),
            "domain": cell.domain.name,
            "seed": cell.config.seed,
        },
        "trained_on": None,
        **facts_of(cell.config.model, cell.config.domain),
        "config": config,
        "primary_metric": cell.config.task.primary_metric,
        "hashes": {"config": digest(relevant(config)), "data": cell.domain.fingerprint, "weights": cell.weights},
        "error": None,
        "started": cell.started,
    }


def facts_of(model: schema.ModelConfig, domain: schema.DomainConfig) -> dict[str, Any]:
    """Return what a record says of a model beside a domain."""
    return {
        "role": model.role,
        "pair": model.pair,
        "family": model.family,
        "modality": domain.modality,
        "exposure": exposure(model.role, model.pretraining_modalities, domain.modality, domain.exposure),
    }


def describe(error: BaseException) -> dict[str, Any]:
    """Return type, message and traceback of an exception, and whether it is one that a user can mend."""
    trace = "".join(traceback.format_exception(error))
    kind, mendable = type(error).__name__, isinstance(error, UserError)
    return {"type": kind, "message": str(error), "traceback": trace, "mendable": mendable}


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
