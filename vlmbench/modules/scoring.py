"""Targets as arrays, and the validation metrics that both families select by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmbench.metrics import diagnosis


def targets_of(labels: Sequence[Sequence[int]], label_count: int, multi_label: bool) -> np.ndarray:
    """Return targets (N,) int64, or (N, C) float32 of zeros and ones for multi-label."""
    if not multi_label:
        return np.array([row[0] for row in labels], dtype=np.int64)
    out = np.zeros((len(labels), label_count), dtype=np.float32)
    for index, row in enumerate(labels):
        out[index, list(row)] = 1.0
    return out


def validation_metrics(scores: np.ndarray, targets: np.ndarray, multi_label: bool) -> dict[str, float]:
    """Return the diagnosis metrics of scores (N, C); one that is undefined counts as 0, see `cell.selecting`."""
    values = diagnosis.evaluate(scores, targets.astype(np.int64), multi_label=multi_label)
    return {name: 0.0 if np.isnan(value) else float(value) for name, value in values.items()}
