"""What finished cells took, found by what makes another cell like them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vlmbench.config import schema
from vlmbench.grid.counted import Phases
from vlmbench.grid.workload import Rows

#: Phases of `cost.seconds` that grow with the rows.
_GROWING = ("encode", "fit", "predict")


@dataclass(frozen=True)
class Sample:
    """One finished cell.

    Attributes:
        phases: Its seconds; `fit` of one epoch.
        rows: Of its splits.
        epochs: That it was trained for; 0 where it was not, or not by epochs.
        max_epochs: That it might have been trained for.
        kind: `gpu` or `cpu`, which it ran on.
        domain: Name of its domain, without split, subset and corruption.
        source: Kind of its domain: `phantom`, `folder`, `published`, ...; "" where the record does not say.
        saved: Bytes that it saved beside record and predictions.
    """

    phases: Phases
    rows: Rows
    epochs: int
    max_epochs: int
    kind: str
    domain: str
    source: str
    saved: int


class Measured:
    """Finished cells by model, method and task.

    Args:
        records: Of any status; those that are not of a finished cell are passed over.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self._samples: dict[tuple[Any, ...], list[Sample]] = {}
        self.count = 0
        for record in records:
            if (sample := sample_of(record)) is not None:
                self._samples.setdefault(_key(_told(record), record["config"].get("trainer", {})), []).append(sample)
                self.count += 1

    def like(self, config: schema.CellConfig) -> list[Sample]:
        """Return finished cells of the same model, method, prompts and batches, on its domain or one of its kind."""
        trainer = config.trainer
        method = config.finetune.name, getattr(config.finetune, "scope", "")
        asked = {"batch_size": trainer.batch_size, "precision": trainer.precision}
        cell = {"model": config.model.name, "finetune": method[0], "scope": method[1], "task": config.task.name}
        cell["prompts"] = config.task.prompts.candidates
        found = self._samples.get(_key(cell, asked), []) or self._samples.get(_key(cell, {}), [])
        same = [sample for sample in found if sample.domain == config.domain.name]
        return same or [sample for sample in found if sample.source == config.domain.source]


def sample_of(record: Mapping[str, Any]) -> Sample | None:
    """Return what a record tells of what its cell took; None where its cell is not done, or it says nothing."""
    if record.get("status") != "done" or record.get("kind") != "cell" or not record.get("cost"):
        return None
    seconds = record["cost"]["seconds"]
    splits = {name: row["examples"] for name, row in record["data"]["splits"].items()}
    rows = Rows(splits.get("train", 0), splits.get("val", 0), splits.get("test", 0))
    config, training = record["config"], record.get("training") or {}
    epochs = int(training.get("epochs") or 0)
    fit = seconds.get("fit", 0.0)
    total = seconds["total"]
    wall = _wall(record, total)
    fixed = wall - sum(seconds.get(name, 0.0) for name in _GROWING)
    return Sample(
        Phases(fixed, seconds.get("encode", 0.0), fit / (epochs or 1), epochs or 1, seconds.get("predict", 0.0)),
        rows,
        epochs,
        int(config.get("trainer", {}).get("max_epochs", 0)),
        "cpu" if record["environment"]["device"] == "cpu" else "gpu",
        config["domain"]["name"],
        config["domain"].get("source", ""),
        int(record["cost"].get("saved_bytes", 0)),
    )


def _wall(record: Mapping[str, Any], total: float) -> float:
    """Return the seconds from start to end: more than the phases, for the domain is built and audited too.

    A machine that slept in between is no measure, nor is the time of a cell that another process began.
    """
    try:
        between = datetime.fromisoformat(record["finished"]) - datetime.fromisoformat(record["started"])
    except (KeyError, TypeError, ValueError):
        return total
    seconds = between.total_seconds()
    return max(total, seconds) if seconds <= 3 * total + 60 else total


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's cell with the number of prompts that it tried."""
    prompts = record["config"].get("task", {}).get("prompts", {})
    return {**record["cell"], "prompts": prompts.get("candidates", 1)}


def _key(cell: Mapping[str, Any], trainer: Mapping[str, Any]) -> tuple[Any, ...]:
    what = (cell["model"], cell["finetune"], cell["scope"], cell["task"], cell["prompts"])
    return (*what, trainer.get("batch_size"), trainer.get("precision"))
