"""What a record says of a cell beside its results, and records that need no run: of the done, and of the dead."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlmbench.cell.naming import Name, label_of, nameless
from vlmbench.cell.prepared import Prepared, now, prepare
from vlmbench.config import schema
from vlmbench.config.exposure import exposure
from vlmbench.errors import UserError
from vlmbench.records.claim import LOCK, Claim, ClaimedError, claim
from vlmbench.records.died import describe_death, was_asked
from vlmbench.records.identity import digest, relevant
from vlmbench.records.lease import find_lease
from vlmbench.records.state import utc
from vlmbench.records.store import RECORD, RecordError, read_record, write_record


def header_of(cell: Prepared) -> dict[str, Any]:
    """Return the part of a record that is known before the cell runs."""
    name = Name(cell.identity, cell.folder, cell.domain.fingerprint, cell.weights)
    return _header(cell.config, name, cell.domain.name, cell.started)


def _header(config: schema.CellConfig, name: Name, domain: str, started: str) -> dict[str, Any]:
    values = dataclasses.asdict(config)
    return {
        "identity": name.identity,
        "kind": "cell" if config.task.evaluate_on == "test" else "trial",
        "cell": {
            "model": config.model.name,
            "task": config.task.name,
            "finetune": config.finetune.name,
            "scope": getattr(config.finetune, "scope", ""),
            "domain": domain,
            "seed": config.seed,
        },
        "trained_on": None,
        **facts_of(config.model, config.domain),
        "config": values,
        "primary_metric": config.task.primary_metric,
        "hashes": {"config": digest(relevant(values)), "data": name.data, "weights": name.weights},
        "error": None,
        "started": started,
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
    return _write_failed(header_of(cell), cell.folder, held, error)


def _write_failed(header: dict[str, Any], folder: Path, held: Claim, error: dict[str, Any]) -> dict[str, Any]:
    record = {**header, "status": "failed", "metrics": {}, "error": error, "finished": now()}
    held.check()
    write_record(folder, record)
    return record


def record_unnamed(config: schema.CellConfig, error: dict[str, Any], started: str) -> Path:
    """Write the failed record of a cell whose data or weights give it no name, for reports; see `nameless`.

    Returns:
        Its directory.

    Raises:
        ClaimedError: Another process is at it.
        UserError: It cannot be written.
    """
    name = nameless(config)
    with claim(name.folder) as held:
        _write_failed(_header(config, name, config.domain.shown_name(), started), name.folder, held, error)
    return name.folder


def forget_unnamed(config: schema.CellConfig) -> None:
    """Remove what `record_unnamed` has left, once the cell has its name."""
    folder = nameless(config).folder
    if (folder / RECORD).exists():
        with suppress(ClaimedError), claim(folder):  # somebody else sees it with other data or weights
            shutil.rmtree(folder)


def record_death(config: schema.CellConfig, exitcode: int, began: float) -> dict[str, Any] | None:
    """Write a failed record for a cell whose process died without one; what it was killed by is its error.

    Called by who waited for the process. Checkpoints stay, and launching again resumes the cell.

    Args:
        config: The cell.
        exitcode: Of its process; negative is the signal that killed it.
        began: When the process was started, in seconds since 1970: a record that failed before is of another try.

    Returns:
        The record; the process's own where it has left one and was killed after it. None where another process has
        taken the cell, where the process was asked to stop (`was_asked`), or where nothing could be written, which is
        told on standard error.
    """
    if was_asked(exitcode):
        return None
    try:
        cell = prepare(config)
        last = find_lease(cell.folder / LOCK)
        with claim(cell.folder) as held:
            if (cell.folder / RECORD).exists():
                record = read_record(cell.folder)
                if record.get("status") == "done" or record.get("finished", "") >= utc(began):
                    return record
            if last is None or last.lease is None or last.lease.taken < began:  # it died before it began to work
                return write_failed(cell, held, describe_death(exitcode, cell.folder))
            begun = dataclasses.replace(cell, started=utc(last.lease.taken))
            return write_failed(begun, held, describe_death(exitcode, cell.folder, last.lease.pid))
    except ClaimedError:
        return None
    except UserError as error:
        print(f"{label_of(config)}: how it died cannot be recorded: {error}", file=sys.stderr)
        return None


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
