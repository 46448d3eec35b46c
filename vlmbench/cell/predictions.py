"""From what a module predicts to the table that is kept: one row an example, everything the metrics need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vlmbench.domains.base import Domain, Example
from vlmbench.metrics.frame import score_frame


def table(examples: Sequence[Example], batches: Sequence[Any], domain: Domain) -> pd.DataFrame:
    """Return the predictions in the examples' order.

    Args:
        examples: The rows that were predicted on.
        batches: Columns over rows, each with `index` into `examples`.
        domain: Gives the task and the labels.

    Raises:
        ValueError: An example was not predicted exactly once.
    """
    columns = {key: [value for batch in batches for value in batch[key]] for key in batches[0]}
    order = columns.pop("index")
    if sorted(order) != list(range(len(examples))):
        raise ValueError(f"{len(examples)} examples, but {len(order)} predictions; each must be predicted exactly once")
    ranked = sorted(range(len(order)), key=order.__getitem__)
    predicted = {key: [values[i] for i in ranked] for key, values in columns.items()}
    frame = pd.DataFrame(
        {
            "example_id": [example.id for example in examples],
            "group": [example.group for example in examples],
            "image": [example.image for example in examples],
        }
    )
    if domain.task == "diagnosis":
        _add_diagnosis(frame, examples, predicted["scores"], domain)
    elif domain.task == "vqa":
        _add_vqa(frame, examples, predicted)
    else:
        for key, values in predicted.items():
            frame[key] = values
        frame["caption"] = [example.caption for example in examples]
    for name in sorted({name for example in examples for name in example.attributes}):
        frame[f"attribute_{name}"] = [example.attributes.get(name) for example in examples]
    return frame


def score(
    frame: pd.DataFrame, task: str, *, multi_label: bool, resamples: int, confidence: float
) -> dict[str, dict[str, Any]]:
    """Return `metrics`, `bootstrap` and `counts` of a predictions table; see `vlmbench.metrics.frame.score_frame`.

    Captions are not scored against each other: a pretraining cell reports the loss on its test split.
    """
    if task != "pretrain":
        return score_frame(frame, task, multi_label=multi_label, n_resamples=resamples, confidence=confidence)
    loss = {"value": float(frame["loss"].mean()), "low": None, "high": None, "reason": "a loss over batches"}
    return {"metrics": {"loss": loss}, "bootstrap": {}, "counts": {"examples": len(frame)}}


def _add_diagnosis(
    frame: pd.DataFrame, examples: Sequence[Example], scores: Sequence[Sequence[float]], domain: Domain
) -> None:
    if domain.multi_label:
        for index in range(len(domain.label_names)):
            frame[f"target_{index}"] = [int(index in example.labels) for example in examples]
    else:
        frame["target"] = [example.labels[0] for example in examples]
    for index in range(len(domain.label_names)):
        frame[f"score_{index}"] = [row[index] for row in scores]


def _add_vqa(frame: pd.DataFrame, examples: Sequence[Example], predicted: Mapping[str, Sequence[Any]]) -> None:
    frame["question"] = [example.question for example in examples]
    frame["answer"] = [example.answer for example in examples]
    frame["answer_type"] = [example.answer_type for example in examples]
    frame["options"] = [list(example.options) for example in examples]
    frame["prediction"] = predicted["prediction"]
    if any(predicted["option_scores"]):
        frame["option_scores"] = predicted["option_scores"]
