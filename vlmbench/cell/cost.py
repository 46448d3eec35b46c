"""What a cell takes: seconds by phase, memory, parameters, and the bytes of what it saves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vlmbench.hosted.model import HostedVlm
from vlmbench.records.environment import peak_host_bytes


class Clock:
    """Seconds spent in named phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's wall time to a phase."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - start, 3)


def peak_memory() -> dict[str, int | None]:
    """Return the most bytes that this process has held, of the host's memory and of its device's."""
    cuda = torch.cuda.is_available()
    return {"host": peak_host_bytes(), "device": torch.cuda.max_memory_allocated() if cuda else None}


def cost(
    clock: Clock,
    parameters: dict[str, Any],
    frame: pd.DataFrame,
    train_rate: float | None,
    saved: Path,
    usage: list[tuple[dict[str, int], dict[str, int | None]]],
) -> dict[str, Any]:
    """Return what the cell took.

    Args:
        clock: Gives the seconds.
        parameters: By part.
        frame: The predictions.
        train_rate: Training examples in a second.
        saved: Directory of what was trained.
        usage: Of each process the images it read and its `peak_memory`; that of the process that took most counts.
    """
    seconds = {**clock.seconds, "total": round(sum(clock.seconds.values()), 3)}
    peaks = {place: [peak[place] or 0 for _, peak in usage] for place in ("host", "device")}
    return {
        "seconds": seconds,
        "devices": len(usage),
        "device_seconds": round(seconds["total"] * len(usage), 3),
        "peak_memory_bytes": {"host": max(peaks["host"]), "device": max(peaks["device"]) or None},
        "parameters": parameters,
        "examples_per_second": {
            "train": train_rate,
            "predict": round(len(frame) / max(seconds["predict"], 1e-3), 2),
        },
        "saved_bytes": sum(path.stat().st_size for path in saved.rglob("*") if path.is_file()),
        "pixels": {key: sum(counts[key] for counts, _ in usage) for key in ("cached", "decoded")},
    }


def asked(backbone: Any) -> dict[str, Any]:
    """Return what a hosted model was asked and what that took, as an entry of the cost; nothing for other models."""
    return {"hosted": backbone.usage()} if isinstance(backbone, HostedVlm) else {}
