"""The flow of one cell: domain, model, finetune, fit, predict, record."""

from __future__ import annotations

import shutil
import signal
import threading
from typing import Any

from vlmbench.cell.crew import Crew
from vlmbench.cell.domain import audited
from vlmbench.cell.faults import describe
from vlmbench.cell.joining import joined
from vlmbench.cell.prepared import Prepared, now
from vlmbench.cell.recorded import forget_unnamed, header_of, rescored, up_to_date, write_failed
from vlmbench.cell.stopping import Interrupted, asked, end, stoppable
from vlmbench.config import schema
from vlmbench.records.claim import Claim, ClaimedError, claim
from vlmbench.records.state import CHECKPOINTS
from vlmbench.records.store import write_record
from vlmbench.reporting.dashboards import show


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
    forget_unnamed(cell.config)
    if cell.done:
        said = up_to_date(cell.config, cell.folder)
        record = rescored(cell, held)
        if not said:  # its run shows the old numbers
            show(cell.config.logger, record, cell.folder, cell.label)
        return record
    try:
        with crew.watched(lambda error: write_failed(cell, held, error)):
            record = _compute(cell, crew, held)
    except (ClaimedError, Interrupted):
        raise
    except SystemExit as stop:  # Lightning's way of passing Ctrl-C on
        raise KeyboardInterrupt from stop
    except Exception as error:  # noqa: BLE001 - whatever went wrong belongs into the record
        if asked():  # a worker that got the same signal, for example; a fault of the cell's own shows again
            end()
        return write_failed(cell, held, crew.fail(describe(error)))
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
                work(cell.config, cell.domain, cell.weights, cell.folder, cell.label, none)
    except ClaimedError:
        raise
    except Exception as fault:  # noqa: BLE001 - rank 0 writes it into the record
        if asked():
            end()
        error = crew.fail(describe(fault))
    record = crew.record()
    return record or {**header_of(cell), "status": "failed", "metrics": {}, "error": error, "finished": now()}


def _compute(cell: Prepared, crew: Crew, held: Claim) -> dict[str, Any]:
    from vlmbench.cell.work import work
    from vlmbench.reporting.dashboards import Dashboard

    domain = audited(cell.domain, hashes=cell.config.domain.audit_hashes)
    crew.go(cell.identity)
    header = header_of(cell)
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
