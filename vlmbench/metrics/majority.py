"""What always giving the same answer scores, on the same examples and in the same metrics as a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vlmbench.metrics.answers import normalise
from vlmbench.metrics.draws import Outcomes, outcomes
from vlmbench.metrics.frame import diagnosis_arrays, vqa_values


def majority_diagnosis(
    frame: pd.DataFrame, metric: str, *, multi_label: bool = False, shares: Sequence[float] | None = None
) -> Outcomes:
    """Score everybody alike: by the share of each label. The AUROC of that is 0.5 by construction.

    Args:
        frame: A predictions table; its scores are not used.
        metric: One of `diagnosis.METRICS`.
        multi_label: Whether an example may carry several labels or none.
        shares: (C,) of the labels in the train split; None takes those of the table, which is a little too good.
    """
    scores, targets = diagnosis_arrays(frame, multi_label)
    counted = targets.mean(axis=0) if multi_label else np.bincount(targets, minlength=scores.shape[1]) / len(targets)
    held = counted if shares is None else shares
    given = {f"score_{index}": np.full(len(frame), share) for index, share in enumerate(held)}
    return outcomes(frame.assign(**given), "diagnosis", metric, multi_label=multi_label)


def majority_vqa(frame: pd.DataFrame, metric: str) -> Outcomes | None:
    """Answer closed questions by the most frequent answer among those with the same options, open ones by one answer.

    Which answers are frequent is taken from the table itself: a train split would do a little worse.

    Args:
        frame: A predictions table; its predictions are not used.
        metric: A metric of `vqa.evaluate`.

    Returns:
        The outcomes; None where the metric says nothing of answers, such as one of likelihoods.
    """
    frame = frame.sort_values("example_id", kind="stable")
    is_open = (frame["answer_type"] == "open").to_numpy()
    said = ""
    if is_open.any():
        answers = frame.loc[is_open, "answer"]
        said = str(answers[answers.map(normalise) == answers.map(normalise).mode().iloc[0]].iloc[0])
    values = vqa_values(frame.assign(prediction=said).drop(columns="option_scores", errors="ignore"))
    values["closed_accuracy"] = values["closed_majority"]
    values["accuracy"] = np.where(is_open, values["open_exact_match"], values["closed_majority"])
    if metric not in values or metric == "closed_unparsed":
        return None
    ids, groups = (frame[name].to_numpy(dtype=str) for name in ("example_id", "group"))
    return Outcomes(metric, ids, groups, values=values[metric])
