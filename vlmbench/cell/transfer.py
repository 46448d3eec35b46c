"""Transfer: a finished cell on another domain, without further training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from vlmbench.cell.domain import audited, build_domain
from vlmbench.cell.faults import describe
from vlmbench.cell.labels import check_labels
from vlmbench.cell.prepared import now
from vlmbench.cell.recorded import facts_of
from vlmbench.cell.stopping import Interrupted, end, stoppable
from vlmbench.cell.stopping import asked as asked_to_stop
from vlmbench.config import schema
from vlmbench.config.checks import check_combination, check_endpoint
from vlmbench.config.domain_checks import check_domain, check_evaluation
from vlmbench.config.faults import ConfigError
from vlmbench.config.presence import package_present
from vlmbench.config.restore import cell_from_dict
from vlmbench.config.trainer_checks import check_evaluation_trainer
from vlmbench.domains.base import Domain
from vlmbench.records.claim import ClaimedError, claim
from vlmbench.records.identity import digest, relevant
from vlmbench.records.store import RECORD, read_record, write_record
from vlmbench.reporting.dashboards import Dashboard

# Of the trainer: what the machine that evaluates decides, wherever the cell was trained.
_OF_THE_MACHINE = (
    *("accelerator", "strategy", "devices", "nodes", "eval_batch_size", "num_workers", "attention", "compile"),
    *("pixel_cache_gib", "feature_cache_gib", "vision_cache_gib"),
)


@dataclasses.dataclass(frozen=True)
class PreparedTransfer:
    """A transfer whose identity is known, before anything heavy is imported.

    Attributes:
        config: The trained cell's configuration, with the other domain in place of its own.
        source: The trained cell's record.
        cell: The trained cell's directory.
        domain: The domain to evaluate on.
        identity: 64 hex digits.
        folder: Where record and predictions go.
        started: When, in UTC.
    """

    config: schema.CellConfig
    source: dict[str, Any]
    cell: Path
    domain: Domain
    identity: str
    folder: Path
    started: str

    @property
    def label(self) -> str:
        """A short name for people."""
        return f"{self.cell.name} on {self.domain.name}"

    @property
    def done(self) -> bool:
        """Whether the record is there and says so."""
        return (self.folder / RECORD).exists() and read_record(self.folder)["status"] == "done"


def prepare_transfer(evaluate: schema.EvaluateConfig) -> PreparedTransfer:
    """Read the finished cell and build the other domain.

    Raises:
        RecordError: The cell is not finished.
        ConfigError: The cell does not go with the domain.
        DomainError: The data are not as configured.
    """
    started = now()
    cell = Path(evaluate.cell)
    source = read_record(cell)
    if source["status"] != "done" or source["kind"] != "cell":
        raise ConfigError(
            f"cell={evaluate.cell!r} is a {source['kind']} that is {source['status']}; give a finished cell."
        )
    trained = cell_from_dict(source["config"])
    check_combination(trained.model, trained.task, trained.finetune, evaluate.domain)
    check_domain(evaluate.domain, trained.task.name)
    check_evaluation(evaluate.domain)
    check_endpoint(trained.model)
    package_present(trained.finetune)
    trainer = dataclasses.replace(
        trained.trainer,
        **{key: getattr(evaluate.trainer, key) for key in _OF_THE_MACHINE},
    )
    check_evaluation_trainer(trainer)
    config = dataclasses.replace(
        trained, domain=evaluate.domain, trainer=trainer, logger=evaluate.logger, lock=evaluate.lock
    )
    domain = build_domain(config.domain, config.task.name)  # type: ignore[arg-type]
    check_labels(source, trained.finetune, domain, cell)
    asked = relevant({"domain": dataclasses.asdict(config.domain)})
    name = digest({"cell": source["identity"], "data": domain.fingerprint, **asked})
    folder = cell / "transfer" / f"{domain.name}-{name[:10]}"
    return PreparedTransfer(config, source, cell, domain, name, folder, started)


def run_transfer(transfer: PreparedTransfer) -> dict[str, Any]:
    """Evaluate to a record; a failure is a record too.

    Raises:
        ClaimedError: Another process is at work on the same transfer.
        Interrupted: The process was asked to stop; there is no record.
    """
    with claim(transfer.folder) as held, stoppable():
        if transfer.done:
            return read_record(transfer.folder)
        header = _header(transfer)
        try:
            with Dashboard(transfer.config.logger, header, transfer.folder, transfer.label) as dashboard:
                record = {**header, **_work(transfer), "status": "done", "finished": now()}
                held.check()
                write_record(transfer.folder, record)
                dashboard.summarise(record)
            return record
        except (ClaimedError, Interrupted):
            raise
        except SystemExit as stop:  # Lightning's way of passing Ctrl-C on
            raise KeyboardInterrupt from stop
        except Exception as error:  # noqa: BLE001 - whatever went wrong belongs into the record
            if asked_to_stop():
                end()
            failed = {"status": "failed", "metrics": {}, "error": describe(error), "finished": now()}
            record = {**header, **failed}
        held.check()
        write_record(transfer.folder, record)
    return record


def _work(transfer: PreparedTransfer) -> dict[str, Any]:
    import torch

    from vlmbench.cell.cost import Clock, asked, cost, peak_memory
    from vlmbench.cell.saving import SAVED
    from vlmbench.cell.tuned import put_together
    from vlmbench.cell.variance import batch_variance
    from vlmbench.cell.work import describe_data, predict, score
    from vlmbench.records.environment import environment
    from vlmbench.tuning.parameters import count_by_part

    config, clock, saved = transfer.config, Clock(), transfer.cell / SAVED
    domain = audited(transfer.domain, hashes=config.domain.audit_hashes)
    tuned = put_together(config, domain, saved, transfer.folder, transfer.label, clock, transfer.source.get("prompts"))
    backbone, data, trainer = tuned.backbone, tuned.data, tuned.trainer
    frame, scored = score(config, predict(tuned.module, data, trainer, clock), domain, transfer.folder, clock)
    usage = [(data.tally.counts(), peak_memory())]
    parameters = count_by_part(backbone.model, backbone.part_prefixes, tuned.head)
    device, precision = trainer.strategy.root_device, str(trainer.precision)
    return {
        **scored,
        "selection": None,
        "prompts": transfer.source.get("prompts"),
        "cost": {
            **cost(clock, parameters, frame, None, saved, usage),
            "features_kept": tuned.features_kept,
            "vision_kept": tuned.vision_kept,
            "data_wait": {"train": None, "predict": tuned.waiting.share("predict")},
            **asked(backbone),
        },
        "data": describe_data(domain),
        "environment": environment(
            device=getattr(backbone, "place", str(device)), precision=precision, threads=torch.get_num_threads()
        ),
        "batch_variance": batch_variance(tuned.module.to(device), data, frame, precision),
    }


def _header(transfer: PreparedTransfer) -> dict[str, Any]:
    config = dataclasses.asdict(transfer.config)
    hashes = {**transfer.source["hashes"], "data": transfer.domain.fingerprint}
    return {
        "identity": transfer.identity,
        "kind": "transfer",
        "cell": {**transfer.source["cell"], "domain": transfer.domain.name},
        "trained_on": transfer.source["cell"]["domain"],
        **facts_of(transfer.config.model, transfer.config.domain),
        "config": config,
        "primary_metric": transfer.config.task.primary_metric,
        "hashes": hashes,
        "error": None,
        "started": transfer.started,
    }
