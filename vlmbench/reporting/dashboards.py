"""Weights & Biases beside the record: one run a cell, and never a reason for a cell to fail."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from vlmbench.config.schema import LoggerConfig, WandbLoggerConfig
from vlmbench.records.state import CHECKPOINTS
from vlmbench.reporting.uploads import adapter_of, predictions_of, run_of, summary_of

STEP = "trainer/global_step"  # under which Lightning's logger puts the step
CURVES = "curves.json"


class Dashboard:
    """A context in which a cell runs; closes its W&B run with the right exit status, whatever happens inside.

    The run's id is the beginning of the cell's identity: a cell that resumes, or is scored anew, goes on in its run.

    Args:
        config: `LoggerConfig` for none, `WandbLoggerConfig` for W&B.
        header: The record so far: identity, cell and configuration.
        folder: The cell's directory.
        label: The run's name.
    """

    def __init__(self, config: LoggerConfig, header: Mapping[str, Any], folder: Path, label: str) -> None:
        self.config = config
        self.header = header
        self.folder = folder
        self.label = label
        self.logger: Any = None

    def __enter__(self) -> Dashboard:
        """Start the run; a dashboard that cannot start is reported and left out."""
        config = self.config
        if isinstance(config, WandbLoggerConfig):
            self._guarded("start", lambda: self._start(config))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the run, as failed where the cell failed."""
        if self.logger is None:
            return
        if kind is not None:
            # The type alone: a message may name a patient's file.
            ended = {"status": "failed" if issubclass(kind, Exception) else "interrupted", "error": kind.__name__}
            self._guarded("update", lambda: self.logger.experiment.summary.update(ended))
        self._guarded("close", lambda: self.logger.experiment.finish(exit_code=0 if kind is None else 1))

    def summarise(self, record: Mapping[str, Any]) -> None:
        """Send the final metrics and costs of a record that is already on disk, and what else was asked for.

        Sent again they replace what is there.
        """
        if self.logger is None:
            return
        run = self.logger.experiment
        self._guarded("update", lambda: run.summary.update(summary_of(record)))
        if not isinstance(self.config, WandbLoggerConfig):
            return
        kind, rows = self.config.predictions, self.config.prediction_rows
        if kind != "none":
            # Into the summary, not the history, where each upload would add a step.
            self._guarded(
                "take the predictions",
                lambda: run.summary.update({"predictions": predictions_of(self.folder, record, kind, rows)}),
            )
        if self.config.artifact and record.get("kind") == "cell":
            self._guarded("take what was trained", lambda: self._upload(record))

    def _upload(self, record: Mapping[str, Any]) -> None:
        artifact = adapter_of(self.folder, record)
        if artifact is not None:
            self.logger.experiment.log_artifact(artifact)

    def _start(self, config: WandbLoggerConfig) -> None:
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        folder = Path(config.folder or self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        # W&B waits 90 s for an answer, and at the end for ever; in a grid each cell would.
        settings: dict[str, Any] = {
            "silent": True,
            "console": "off",  # what is printed may name files of patients
            "init_timeout": float(os.environ.get("WANDB_INIT_TIMEOUT", "30")),
            "finish_timeout": config.patience,
        }
        known = wandb.Settings.model_fields  # older versions lack the last
        run = wandb.init(
            **run_of(config, self.header, self.label),
            dir=str(folder),
            reinit="create_new",
            settings=wandb.Settings(**{name: value for name, value in settings.items() if name in known}),
        )
        curves = Curves(self.folder / CHECKPOINTS / CURVES, run.summary.get(STEP) if run.resumed else None)
        guarded = self._guarded

        class GuardedLogger(WandbLogger):
            """Curves that cannot be sent are reported, not raised into the training loop."""

            def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
                if fresh := curves.fresh(metrics, step):
                    guarded("log", lambda: super(GuardedLogger, self).log_metrics(fresh, step))

        self.logger = GuardedLogger(experiment=run)

    def _guarded(self, what: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever W&B raises, the cell goes on
            print(
                f"{self.label}: W&B could not {what} ({type(error).__name__}: {error}); going on without.",
                file=sys.stderr,
            )
            if what == "start":
                self.logger = None


def show(config: LoggerConfig, record: Mapping[str, Any], folder: Path, label: str) -> bool:
    """Bring the run of a finished cell or transfer up to date with its record; returns whether W&B took it."""
    with Dashboard(config, record, folder, label) as dashboard:
        dashboard.summarise(record)
        return dashboard.logger is not None


class Curves:
    """Which steps of each curve are sent: a cell that resumes repeats those since its checkpoint.

    Args:
        path: Where it is kept, beside the checkpoints, and gone with them.
        floor: Last step of a run that goes on where nothing is kept; None where there is no such run.
    """

    def __init__(self, path: Path, floor: int | None) -> None:
        self.path = path
        try:
            self.sent: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
            self.floor = -1
        except (OSError, ValueError):
            self.sent, self.floor = {}, -1 if floor is None else int(floor)

    def fresh(self, metrics: Mapping[str, float], step: int | None) -> dict[str, float]:
        """Return the metrics that were not sent for this step, and note that they are."""
        if step is None:
            return dict(metrics)
        fresh = {name: value for name, value in metrics.items() if step > self.sent.get(name, self.floor)}
        if fresh:
            self.sent |= dict.fromkeys(fresh, step)
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text(json.dumps(self.sent), encoding="utf-8")
            except OSError:  # a full disk shows where it matters, at the checkpoint; here a step may show twice
                self.path.unlink(missing_ok=True)
        return fresh
