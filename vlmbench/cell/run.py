"""The flow of one cell: domain, model, finetune, fit, predict, record."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlmbench.cell.crew import Crew, joined
from vlmbench.cell.domain import audited, build_domain
from vlmbench.cell.faults import describe
from vlmbench.cell.naming import label_of, name_of, name_weights
from vlmbench.cell.stopping import Interrupted, asked, end, stoppable
from vlmbench.config import schema
from vlmbench.config.exposure import exposure
from vlmbench.domains.base import Domain, DomainError
from vlmbench.errors import UserError
from vlmbench.records.claim import LOCK, Claim, ClaimedError, claim
from vlmbench.records.died import describe_death, was_asked
from vlmbench.records.identity import digest, relevant
from vlmbench.records.lease import find_lease
from vlmbench.records.state import CHECKPOINTS, utc
from vlmbench.records.store import RECORD, RecordError, read_record, write_record


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
        ClaimedError: Another process is at work on the same cell, or has taken it over from this one.
        Interrupted: The cell was asked to stop. It has no record, and goes on at the next call.
        RecordError: The record cannot be written.
    """
    with joined(cell.config.trainer) as crew, stoppable():
        if not crew.rank.is_zero:
            return _follow(cell, crew)
        try:
            # A process that lost its cell while it slept would go on for hours and write into what another makes.
            with claim(cell.folder, on_lost=_stop) as held:
                try:
                    record = _lead(cell, crew, held)
                except KeyboardInterrupt:
                    held.check()
                    raise
        except ClaimedError as error:
            crew.stand_down(str(error))
            raise
        crew.publish(record)
        return record


def _stop() -> None:
    """Stop the cell as Ctrl-C does, also where it waits for something."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _lead(cell: Prepared, crew: Crew, held: Claim) -> dict[str, Any]:
    if cell.done:
        return rescored(cell, held)
    try:
        with crew.watched(lambda error: _write_failed(cell, held, error)):
            record = _compute(cell, crew, held)
    except (ClaimedError, Interrupted):
        raise
    except SystemExit as stop:  # Lightning's way of passing Ctrl-C on
        raise KeyboardInterrupt from stop
    except Exception as error:  # noqa: BLE001 - whatever went wrong belongs into the record
        if asked():  # a worker that got the same signal, for example; a fault of the cell's own shows again
            end()
        return _write_failed(cell, held, crew.fail(describe(error)))
    shutil.rmtree(cell.folder / CHECKPOINTS, ignore_errors=True)
    return record


def _write_failed(cell: Prepared, held: Claim, error: dict[str, Any]) -> dict[str, Any]:
    record = {**_header(cell), "status": "failed", "metrics": {}, "error": error, "finished": now()}
    held.check()
    write_record(cell.folder, record)
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
                work(cell.config, cell.domain, cell.weights, cell.folder, cell.label, none)
    except ClaimedError:
        raise
    except Exception as fault:  # noqa: BLE001 - rank 0 writes it into the record
        if asked():
            end()
        error = crew.fail(describe(fault))
    record = crew.record()
    return record or {**_header(cell), "status": "failed", "metrics": {}, "error": error, "finished": now()}


def _compute(cell: Prepared, crew: Crew, held: Claim) -> dict[str, Any]:
    from vlmbench.cell.work import work
    from vlmbench.reporting.dashboards import Dashboard

    domain = audited(cell.domain, hashes=cell.config.domain.audit_hashes)
    crew.go(cell.identity)
    header = _header(cell)
    with Dashboard(cell.config.logger, header, cell.folder, cell.label) as dashboard:
        record = {
            **header,
            **work(cell.config, domain, cell.weights, cell.folder, cell.label, dashboard),
            "status": "done",
        }
        record["finished"] = now()
        held.check()
        # Before anything is uploaded: a dashboard that is down must not cost a result.
        write_record(cell.folder, record)
        dashboard.summarise(record)
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
            if (cell.folder / RECORD).exists():
                return None
            if last is None or last.lease is None:  # it died before it began to work
                return _write_failed(cell, held, describe_death(exitcode, cell.folder))
            begun = dataclasses.replace(cell, started=utc(last.lease.taken))
            return _write_failed(begun, held, describe_death(exitcode, cell.folder, last.lease.pid))
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


def _header(cell: Prepared) -> dict[str, Any]:
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


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
