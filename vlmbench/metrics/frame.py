"""From a table of predictions to metrics with intervals: the one way in for records and reports.

Undefined numbers come back as None, so that `json.dumps(..., allow_nan=False)` takes the result as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vlmbench.metrics import bootstrap, diagnosis, profiles, vqa, weighted

COMMON_COLUMNS = ("example_id", "group")
VQA_COLUMNS = ("question", "answer", "answer_type", "options", "prediction")


def score_frame(
    frame: pd.DataFrame,
    task: str,
    *,
    multi_label: bool = False,
    threshold: float | Sequence[float] | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Compute all metrics of a predictions table with cluster bootstrap intervals.

    Args:
        frame: One row an example, with `example_id` and `group`, and for `diagnosis` `score_0` to `score_{C-1}` and
            `target` (for multi-label `target_0` to `target_{C-1}`), for `vqa` `question`, `answer`, `answer_type`,
            `options`, `prediction` and, if there are any, `option_scores`. Further columns are ignored.
        task: `diagnosis` or `vqa`.
        multi_label: Diagnosis: whether an example may carry several labels or none.
        threshold: Diagnosis: see `diagnosis.one_vs_rest`.
        n_resamples: Number of bootstrap resamples.
        confidence: Coverage of the intervals.
        seed: Seed of the bootstrap.

    Returns:
        `metrics`: per metric of `diagnosis.evaluate` or `vqa.evaluate`, `value`, `low`, `high`, `n_resamples`,
        `undefined`, and `reason` where there is no interval.
        `bootstrap`: how the intervals were made, as in `bootstrap.intervals`.
        `counts`: numbers of `examples`, and of `columns_left_out` (diagnosis) or `open` and `closed` (vqa).

    Raises:
        ValueError: The frame is empty, a column is missing, an example occurs twice, or a value does not fit.
    """
    check_frame(frame, task)
    settings: dict[str, Any] = {"n_resamples": n_resamples, "confidence": confidence, "seed": seed}
    groups = frame["group"].to_numpy()
    counts = {"examples": len(frame)}
    if task == "vqa":
        values = vqa_values(frame)
        result = bootstrap.intervals(values, groups, **settings)
        points = vqa.summary(values)
        counts |= {kind: int((frame["answer_type"] == kind).sum()) for kind in ("open", "closed")}
    else:
        scores, targets = diagnosis_arrays(frame, multi_label)
        points = diagnosis.evaluate(scores, targets, multi_label=multi_label, threshold=threshold)
        columns = diagnosis.one_vs_rest(scores, targets, multi_label=multi_label, threshold=threshold)
        settings |= {"support": weighted.support(columns, groups), "freedom": weighted.freedom(columns, groups)}
        result = bootstrap.intervals(weighted.statistics(columns), groups, **settings)
        counts["columns_left_out"] = int(points["columns_left_out"])
    for name, metric in result["metrics"].items():
        metric["value"] = points[name]
    return {**to_jsonable(result), "counts": counts}


def check_frame(frame: pd.DataFrame, task: str) -> None:
    """Check that a predictions table has one row an example, and the columns that every metric of its task needs.

    Args:
        frame: As `score_frame` takes it.
        task: `diagnosis` or `vqa`.

    Raises:
        ValueError: The frame is empty, a column is missing, an example occurs twice, or an entry is null.
    """
    if task not in {"diagnosis", "vqa"}:
        raise ValueError(f"task must be 'diagnosis' or 'vqa', got {task!r}")
    if frame.empty:
        raise ValueError("there are no predictions to score: the frame is empty")
    _require(frame, COMMON_COLUMNS if task == "diagnosis" else COMMON_COLUMNS + VQA_COLUMNS)
    _refuse_nulls(frame, COMMON_COLUMNS)
    if not frame["example_id"].is_unique:
        twice = frame.loc[frame["example_id"].duplicated(), "example_id"]
        raise ValueError(
            f"{len(twice)} rows repeat an example_id, the first is {twice.iloc[0]!r}; one row an example is expected"
        )
    if task == "vqa":
        _refuse_nulls(frame, ("answer", "answer_type", "prediction"))


def to_jsonable(value: Any) -> Any:
    """Return a copy in which every NaN is None and every numpy number a Python one, through dicts, lists and tuples."""
    if isinstance(value, dict):
        return {key: to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def vqa_values(frame: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return the arrays of `vqa.evaluate` of a predictions table."""
    return profile_values(frame, "strict")


def profile_values(frame: pd.DataFrame, profile: str) -> dict[str, NDArray[np.float64]]:
    """Return the arrays of `profiles.evaluate` of a predictions table."""
    _refuse_nulls(frame, ("answer", "answer_type", "prediction"))
    return profiles.evaluate(
        profile,
        frame["prediction"].tolist(),
        frame["answer"].tolist(),
        frame["answer_type"].tolist(),
        _lists(frame["options"]),
        _lists(frame["option_scores"]) if "option_scores" in frame else None,
    )


def score_profiles(
    frame: pd.DataFrame, *, n_resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Compute the metrics of every profile of a vqa predictions table, all on the same resamples of groups.

    Args:
        frame: As `score_frame` takes it for `vqa`.
        n_resamples: Number of bootstrap resamples.
        confidence: Coverage of the intervals.
        seed: Seed of the bootstrap.

    Returns:
        Per profile `metrics` and `bootstrap`, as `bootstrap.intervals` gives them.

    Raises:
        ValueError: The frame is empty, a column is missing or a value does not fit.
    """
    _require(frame, COMMON_COLUMNS + VQA_COLUMNS)
    groups = frame["group"].to_numpy()
    settings: dict[str, Any] = {"n_resamples": n_resamples, "confidence": confidence, "seed": seed}
    return {name: bootstrap.intervals(profile_values(frame, name), groups, **settings) for name in profiles.PROFILES}


def diagnosis_arrays(frame: pd.DataFrame, multi_label: bool) -> tuple[NDArray[np.float64], NDArray]:
    """Return scores (N, C) and targets, (N,) or multi-label (N, C), of a predictions table."""
    scores = _numbered(frame, "score_")
    if not multi_label:
        _require(frame, ["target"])
        return scores, frame["target"].to_numpy()
    _require(frame, [f"target_{i}" for i in range(scores.shape[1])])
    return scores, _numbered(frame, "target_")


def _numbered(frame: pd.DataFrame, prefix: str) -> NDArray[np.float64]:
    """Stack the columns prefix0, prefix1, ..., which must have no gap, as (N, C)."""
    numbers = [int(name[len(prefix) :]) for name in map(str, frame.columns) if re.fullmatch(prefix + r"\d+", name)]
    names = [f"{prefix}{i}" for i in range(max(numbers, default=0) + 1)]
    _require(frame, names)
    return frame[names].to_numpy(dtype=np.float64)


def _lists(column: pd.Series) -> list[list]:
    """Return lists from what a parquet file may give for them: lists, arrays, or null for an empty one."""
    return [list(item) if isinstance(item, list | tuple | np.ndarray) else [] for item in column]


def _require(frame: pd.DataFrame, names: Sequence[str]) -> None:
    if missing := [name for name in names if name not in frame]:
        raise ValueError(f"predictions lack the columns {missing}; present are {list(frame.columns)}")


def _refuse_nulls(frame: pd.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        if nulls := int(frame[name].isna().sum()):
            raise ValueError(f"{nulls} of {len(frame)} rows have no {name!r}; an empty answer is '', not null")
