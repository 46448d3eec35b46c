"""How long a cell will take: from finished cells like it where there are any, else from counted operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal

from vlmbench.config import schema
from vlmbench.config.checks import encoded_splits
from vlmbench.config.prompts import tries_prompts
from vlmbench.grid.counted import READ, Phases, encoding, epochs_of, phases
from vlmbench.grid.devices import Device, device_of
from vlmbench.grid.measured import Measured, Sample
from vlmbench.grid.workload import Rows, rows_of

Basis = Literal["measured", "counted", "unknown"]
#: What a cell of which nothing is known is taken for: long enough for a job of its own, never out of all proportion.
UNKNOWN_SECONDS = 3600.0


@dataclass(frozen=True)
class Estimate:
    """What a cell will take.

    Attributes:
        seconds: Of wall time.
        basis: `measured` from finished cells, `counted` from operations, `unknown` where neither can be had; then
            `seconds` is a placeholder.
        kind: `gpu` or `cpu`.
        devices: GPUs that the cell holds meanwhile, 1 on a CPU.
        reading: Seconds among them in which images are decoded; the pixel cache spares them to the next cell of the
            same model and domain.
        encoding: Seconds among them in which images are encoded, by split; the feature cache spares them to the next
            cell of the same model and domain.
        likely: Of cells that stop early: how many epochs finished ones came to; 0 where all are counted.
    """

    seconds: float
    basis: Basis
    kind: str
    devices: int = 1
    reading: float = 0.0
    encoding: Mapping[str, float] = field(default_factory=dict)
    likely: float = 0.0

    @property
    def hours(self) -> float:
        """Hours of all devices together, reading included."""
        return self.seconds * self.devices / 3600


def seconds_of(config: schema.CellConfig) -> float:
    """Return about how many seconds a cell takes, from its configuration alone; above 0, always finite.

    For putting the longest first and packing the short ones: it reads no record, builds no domain and imports no
    torch. Right within a factor of a few; `UNKNOWN_SECONDS` where nothing is known.
    """
    return estimate(config).seconds


def estimate(
    config: schema.CellConfig,
    *,
    rows: Rows | None = None,
    measured: Measured | None = None,
    device: Device | None = None,
) -> Estimate:
    """Estimate one cell.

    Args:
        config: The cell.
        rows: Examples of its splits, where its domain has been built; else what the configuration tells.
        measured: Finished cells to go by.
        device: What it runs on where its trainer leaves that open.
    """
    rows = rows or rows_of(config)
    runs_on = device_of(config, device)
    alike = measured.like(config) if measured else []
    if alike and rows:
        kinds = [sample.kind for sample in alike]
        kind = max(sorted(set(kinds)), key=kinds.count)
        return _scaled(config, rows, [sample for sample in alike if sample.kind == kind], kind)
    counted = phases(config, rows, runs_on) if rows else None
    devices = config.trainer.devices * config.trainer.nodes if runs_on.kind == "gpu" else 1
    if counted is None or rows is None:
        return Estimate(UNKNOWN_SECONDS, "unknown", runs_on.kind, devices)
    trains = config.finetune.name != "zero_shot"
    images = rows.test + rows.train * trains + rows.val * (trains or tries_prompts(config))
    reading = images * READ / max(1, config.trainer.num_workers) if _reads(config) else 0.0
    shared = encoding(config, rows, runs_on)
    return Estimate(counted.total + reading, "counted", runs_on.kind, devices, reading, shared)


def _reads(config: schema.CellConfig) -> bool:
    return config.domain.source != "phantom" or config.domain.corruption != "none"


def _scaled(config: schema.CellConfig, rows: Rows, samples: Sequence[Sample], kind: str) -> Estimate:
    each = [_like(config, rows, sample) for sample in samples]
    devices = config.trainer.devices * config.trainer.nodes if kind == "gpu" else 1
    early = [sample.epochs for sample in samples if 0 < sample.epochs < sample.max_epochs]
    likely = median(early) if early and config.trainer.max_epochs > min(early) else 0.0
    return Estimate(median(one.total for one in each), "measured", kind, devices, likely=likely)


def _like(config: schema.CellConfig, rows: Rows, sample: Sample) -> Phases:
    """Return the phases of a cell that goes as a finished one went, with other rows and epochs."""
    was, took = sample.rows, sample.phases
    splits = encoded_splits(config)
    encoded = _ratio(sum(getattr(rows, split) for split in splits), sum(getattr(was, split) for split in splits))
    fitted = _ratio(rows.train + rows.val, was.train + was.val)
    epochs = took.epochs
    if sample.epochs:
        limit = epochs_of(config, -(-rows.train // config.trainer.batch_size))
        # One that came to its last epoch says nothing of where a longer training would stop.
        epochs = min(limit, sample.epochs) if sample.epochs < sample.max_epochs else limit
    return replace(
        took,
        encode=took.encode * encoded,
        fit=took.fit * fitted,
        epochs=epochs,
        predict=took.predict * _ratio(rows.test, was.test),
    )


def _ratio(now: int, then: int) -> float:
    return now / then if then else 1.0
