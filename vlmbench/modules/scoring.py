"""Targets as arrays, and the validation metrics that both families select by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmbench.errors import UserError
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
    """Return the diagnosis metrics of scores (N, C); one that is undefined counts as 0, see `check_selectable`."""
    values = diagnosis.evaluate(scores, targets.astype(np.int64), multi_label=multi_label)
    return {name: 0.0 if np.isnan(value) else float(value) for name, value in values.items()}


def check_selectable(monitor: str, labels: Sequence[Sequence[int]]) -> None:
    """Check that a metric of the validation split can tell candidates apart.

    Args:
        monitor: Its name.
        labels: Of each validation example.

    Raises:
        UserError: It is the AUROC, and all examples have the same labels: it is defined for none, and whichever
            candidate comes first would be taken for the best.
    """
    if monitor == "val/auroc" and len({tuple(sorted(row)) for row in labels}) == 1:
        raise UserError(
            f"task.monitor=val/auroc is undefined: all {len(labels)} examples of the validation split have the same "
            "label. Give it examples of others, or set task.monitor=val/loss."
        )
