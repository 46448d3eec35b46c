"""What a record says of a cell beside its results, and records that need no run: of the done, and of the dead."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmbench.cell.naming import label_of
from vlmbench.cell.prepared import Prepared, now, prepare
from vlmbench.config import schema
from vlmbench.config.exposure import exposure
from vlmbench.errors import UserError
from vlmbench.records.claim import LOCK, Claim, ClaimedError, claim
from vlmbench.records.died import describe_death, was_asked
from vlmbench.records.identity import digest, relevant
from vlmbench.records.lease import Found, find_lease
from vlmbench.records.state import utc
from vlmbench.records.store import RECORD, RecordError, read_record, write_record


def header_of(cell: Prepared) -> dict[str, Any]:
    """Return the part of a record that is known before the cell runs."""
    config = dataclasses.asdict(cell.config)
    return {
        "identity": cell.identity,
        "kind": "cell" if cell.config.task.evaluate_on == "test" else "trial",
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


def write_failed(cell: Prepared, held: Claim, error: dict[str, Any]) -> dict[str, Any]:
    """Write and return the record of a cell that failed."""
    record = {**header_of(cell), "status": "failed", "metrics": {}, "error": error, "finished": now()}
    held.check()
    write_record(cell.folder, record)
    return record


def record_death(config: schema.CellConfig, exitcode: int) -> dict[str, Any] | None:
    """Write a failed record for a cell whose process died without one; what it was killed by is its error.

    Called by who waited for the process. Checkpoints stay, and launching again resumes the cell.

    Args:
        config: The cell.
        exitcode: Of its process; negative is the signal that killed it.

    Returns:
        The record. None where there is one already, where another process has taken the cell, where the process
        was asked to stop (`was_asked`), or where nothing could be written, which is told on standard error.
    """
    if was_asked(exitcode):
        return None
    try:
        cell = prepare(config)
        last = find_lease(cell.folder / LOCK)
        with claim(cell.folder) as held:
            if (cell.folder / RECORD).exists() and not _is_of_an_earlier_run(cell.folder, last):
                return None
            if last is None or last.lease is None:  # it died before it began to work
                return write_failed(cell, held, describe_death(exitcode, cell.folder))
            begun = dataclasses.replace(cell, started=utc(last.lease.taken))
            return write_failed(begun, held, describe_death(exitcode, cell.folder, last.lease.pid))
    except ClaimedError:
        return None
    except UserError as error:
        print(f"{label_of(config)}: how it died cannot be recorded: {error}", file=sys.stderr)
        return None


def _is_of_an_earlier_run(folder: Path, last: Found | None) -> bool:
    """Return whether a record tells how a run failed before the last one; who fails again leaves it until then."""
    record = read_record(folder)
    if record["status"] != "failed" or last is None or last.lease is None:
        return False
    return str(record["finished"]) < utc(last.lease.taken)


def rescored(cell: Prepared, held: Claim) -> dict[str, Any]:
    """Return the record of a finished cell, brought up to date with what is asked and said of it now.

    Metrics are computed anew from the predictions where other intervals are asked for; role, pair, exposure and the
    like follow the YAML files, whose mistakes are mended after the fact too.
    """
    record = read_record(cell.folder)
    if _says_all(cell.config, record):
        return record
    asked = cell.config.task
    if _asks_for_other_intervals(asked, record):
        from vlmbench.cell.predictions import score
        from vlmbench.records.store import read_predictions

        record |= score(
            read_predictions(cell.folder),
            asked.name,
            multi_label=cell.domain.multi_label,
            resamples=asked.resamples,
            confidence=asked.confidence,
        )
    updated = _with_facts_of(cell.config, record)
    held.check()
    write_record(cell.folder, updated)
    return updated


def up_to_date(config: schema.CellConfig, folder: Path) -> bool:
    """Return whether a directory holds a done record that says all that is asked and said of the cell now.

    Then there is nothing to run and nothing to bring up to date, see `rescored`; looked up without torch.
    """
    try:
        record = read_record(folder)
        return record["status"] == "done" and _says_all(config, record)
    except (RecordError, KeyError, TypeError):  # none, or damaged: the cell itself says more
        return False


def _says_all(config: schema.CellConfig, record: Mapping[str, Any]) -> bool:
    return _with_facts_of(config, record) == record  # what is asked of the metrics stands in its configuration


def _asks_for_other_intervals(task: schema.TaskConfig, record: Mapping[str, Any]) -> bool:
    then = record["config"]["task"]
    return task.name != "pretrain" and (then["resamples"], then["confidence"]) != (task.resamples, task.confidence)


def _with_facts_of(config: schema.CellConfig, record: Mapping[str, Any]) -> dict[str, Any]:
    said = facts_of(config.model, config.domain) | {"primary_metric": config.task.primary_metric}
    parts = {key: dataclasses.asdict(getattr(config, key)) for key in ("model", "task", "domain")}
    return {**record, **said, "config": {**record["config"], **parts}}
