"""Diagnosis: how good are class scores, by ranking (AUROC, average precision) and after a decision (accuracy, F1)?

Everything is reduced to L one-vs-rest columns: one for a binary task (class 1), one a class for a multi-class task, one
a label for a multi-label task. A column on which a metric is undefined is left out of the macro mean; if none is left,
the metric is NaN. `weighted` computes the same metrics under bootstrap weights, from the same columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

METRICS = ("auroc", "average_precision", "accuracy", "balanced_accuracy", "f1")


@dataclass(frozen=True, slots=True)
class OneVsRest:
    """A diagnosis task after the decision, as one-vs-rest columns.

    Attributes:
        truth: (N, L) bool: the example is of this class, or carries this label.
        predicted: (N, L) bool: it was decided so.
        scores: (N, L) float64 in [0, 1]: what the ranking metrics rank by.
        correct: (N,) float64 in [0, 1]: 1 for a right class; for multi-label the share of labels decided rightly.
        exclusive: Whether the columns are the classes of a multi-class task, of which each example has exactly one.
    """

    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    scores: NDArray[np.float64]
    correct: NDArray[np.float64]
    exclusive: bool

    @property
    def one_class_only(self) -> NDArray[np.bool_]:
        """(L,) bool: the column is all positive or all negative, so that nothing can be ranked."""
        return np.asarray(self.truth.all(axis=0) | ~self.truth.any(axis=0))


def one_vs_rest(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    multi_label: bool = False,
    threshold: float | Sequence[float] | None = None,
) -> OneVsRest:
    """Check scores and targets, decide, and lay the task out as one-vs-rest columns.

    The decision is the class of the highest score, the first of equals; for multi-label, each label whose score is
    above 0.5. A threshold replaces it: "above", never "at", so that 0.5 and the highest score agree on binary ties.

    Args:
        scores: (N, C) probabilities.
        targets: (N,) class indices, or (N, C) zeros and ones for multi-label.
        multi_label: Whether an example may carry several labels or none.
        threshold: On the score of class 1 of a binary task, or one for all labels, or (C,) one a label. To be chosen on
            validation, never on the examples evaluated.

    Raises:
        ValueError: Shapes, values or the threshold do not fit; the message says which and how many.
    """
    probabilities = np.asarray(scores, dtype=np.float64)
    labels = np.asarray(targets)
    _check_scores(probabilities, multi_label)
    _check_targets(labels, probabilities.shape, multi_label)
    n_classes = probabilities.shape[1]
    if multi_label:
        truth = labels.astype(bool)
        predicted = probabilities > _check_threshold(0.5 if threshold is None else threshold, n_classes)
        correct = (truth == predicted).mean(axis=1)
        return OneVsRest(truth, predicted, probabilities, correct, exclusive=False)
    if threshold is None:
        decided = probabilities.argmax(axis=1)
    elif n_classes == 2:
        decided = (probabilities[:, 1] > _check_threshold(threshold, 1)).astype(int)
    else:
        raise ValueError(f"a threshold is for binary and multi-label tasks; here are {n_classes} exclusive classes")
    correct = (decided == labels).astype(np.float64)
    columns = np.array([1]) if n_classes == 2 else np.arange(n_classes)
    return OneVsRest(
        truth=labels[:, None] == columns,
        predicted=decided[:, None] == columns,
        scores=probabilities[:, columns],
        correct=correct,
        exclusive=n_classes > 2,
    )


def evaluate(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    multi_label: bool = False,
    threshold: float | Sequence[float] | None = None,
) -> dict[str, float]:
    """Compute the diagnosis metrics with scikit-learn.

    Args:
        scores: (N, C) probabilities.
        targets: (N,) class indices, or (N, C) zeros and ones for multi-label.
        multi_label: Whether an example may carry several labels or none.
        threshold: See `one_vs_rest`.

    Returns:
        Each in [0, 1], or NaN where undefined:
        `auroc`: of class 1 (binary), macro one-vs-rest (multi-class), macro over labels (multi-label).
        `average_precision`: likewise; the step-wise sum, without interpolation, as in scikit-learn.
        `accuracy`: share of examples; for multi-label the mean over labels, that is one minus the Hamming loss.
        `balanced_accuracy`: mean recall of the classes that occur, undefined where only one does; for multi-label the
        macro over labels of the mean of sensitivity and specificity.
        `f1`: of class 1 (binary), or macro over the classes or labels that occur in targets or decisions.
        Besides, `columns_left_out`: how many classes or labels are of one class only, and therefore not in AUROC,
        average precision and, for multi-label, balanced accuracy.

    Raises:
        ValueError: The input does not fit; see `one_vs_rest`.
    """
    from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, recall_score, roc_auc_score

    task = one_vs_rest(scores, targets, multi_label=multi_label, threshold=threshold)
    usable = np.flatnonzero(~task.one_class_only)
    columns = list(zip(task.truth.T, task.predicted.T, strict=True))
    if task.exclusive:
        recalls = [recall_score(truth, predicted, zero_division=np.nan) for truth, predicted in columns]
        balanced = nan_mean(recalls) if usable.size else np.nan
    else:
        balanced = nan_mean([balanced_accuracy_score(*columns[k]) for k in usable])
    return {
        "auroc": nan_mean([roc_auc_score(task.truth[:, k], task.scores[:, k]) for k in usable]),
        "average_precision": nan_mean([average_precision_score(task.truth[:, k], task.scores[:, k]) for k in usable]),
        "accuracy": float(task.correct.mean()),
        "balanced_accuracy": balanced,
        "f1": nan_mean([f1_score(truth, predicted, zero_division=np.nan) for truth, predicted in columns]),
        "columns_left_out": float(task.one_class_only.sum()),
    }


def nan_mean(values: ArrayLike) -> float:
    """Return the mean of the values that are not NaN, or NaN, without a warning, if there are none."""
    array = np.asarray(values, dtype=np.float64)
    kept = array[~np.isnan(array)]
    return float(kept.mean()) if kept.size else float("nan")


def _check_scores(scores: NDArray[np.float64], multi_label: bool) -> None:
    least = 1 if multi_label else 2
    if scores.ndim != 2 or scores.shape[0] < 1 or scores.shape[1] < least:
        raise ValueError(f"scores must be (N, C) with N >= 1 and C >= {least}, got shape {scores.shape}")
    if bad := int((~np.isfinite(scores)).sum()):
        rows = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        raise ValueError(f"{bad} of {scores.size} scores are not finite, the first in row {rows[0]}")
    # Half a float32 step of slack: a softmax may round to just above 1.
    if bad := int(((scores < -1e-6) | (scores > 1 + 1e-6)).sum()):
        raise ValueError(
            f"{bad} of {scores.size} scores are outside [0, 1] (from {scores.min():.4g} to {scores.max():.4g}); "
            "pass probabilities, not logits"
        )


def _check_targets(targets: NDArray, shape: tuple[int, ...], multi_label: bool) -> None:
    expected = shape if multi_label else shape[:1]
    if targets.shape != expected:
        raise ValueError(f"targets must have shape {expected} to fit scores of shape {shape}, got {targets.shape}")
    admissible = np.arange(2 if multi_label else shape[1])
    wrong = ~np.isin(targets, admissible)
    if wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} of {targets.size} targets are none of 0..{admissible[-1]}, "
            f"for example {targets[wrong].ravel()[0]!s}"
        )


def _check_threshold(threshold: float | Sequence[float], n_columns: int) -> NDArray[np.float64]:
    values = np.atleast_1d(np.asarray(threshold, dtype=np.float64))
    if values.shape not in {(1,), (n_columns,)} or not np.isfinite(values).all():
        raise ValueError(f"threshold must be one finite number or {n_columns}, got {threshold!r}")
    return values
