"""Weights & Biases beside the record: one run a cell, and never a reason for a cell to fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from vlmbench.config.schema import LoggerConfig, WandbLoggerConfig


class Dashboard:
    """A context in which a cell runs; closes its W&B run with the right exit status, whatever happens inside.

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
        if isinstance(self.config, WandbLoggerConfig):
            self._guarded("start", lambda: self._start(self.config))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the run, as failed where the cell failed."""
        if self.logger is not None:
            self._guarded("close", lambda: self.logger.experiment.finish(exit_code=0 if kind is None else 1))

    def summarise(self, record: Mapping[str, Any]) -> None:
        """Send the final metrics and costs of a record that is already on disk."""
        if self.logger is None:
            return
        flat: dict[str, Any] = {}
        for name, row in record["metrics"].items():
            flat |= {f"test/{name}": row["value"], f"test/{name}_low": row["low"], f"test/{name}_high": row["high"]}
        flat |= {f"seconds/{name}": value for name, value in record["cost"]["seconds"].items()}
        flat |= {key: record[key] for key in ("identity", "exposure", "role")}
        self._guarded("update", lambda: self.logger.experiment.summary.update(flat))

    def _start(self, config: WandbLoggerConfig) -> None:
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        folder = Path(config.folder or self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=config.project,
            entity=config.entity,
            mode=config.mode,  # type: ignore[arg-type]
            group=config.group,
            tags=config.tags,
            name=self.label,
            dir=str(folder),
            config={**self.header["config"], "identity": self.header["identity"]},
            reinit="create_new",
            # W&B waits 90 s for an answer; in a grid each cell would.
            settings=wandb.Settings(silent=True, init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", "30"))),
        )
        guarded = self._guarded

        class GuardedLogger(WandbLogger):
            """Curves that cannot be sent are reported, not raised into the training loop."""

            def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
                guarded("log", lambda: super(GuardedLogger, self).log_metrics(metrics, step))

        self.logger = GuardedLogger(experiment=run)

    def _guarded(self, what: str, action: Any) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever W&B raises, the cell goes on
            print(
                f"{self.label}: W&B could not {what} ({type(error).__name__}: {error}); going on without.",
                file=sys.stderr,
            )
            if what == "start":
                self.logger = None
