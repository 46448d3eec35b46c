"""A cell's answers before and after the judge: which are asked about, and what is kept of the rulings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vlmbench.judging.judge import Judge, Ruling, counted, who
from vlmbench.judging.rubric import Item, Rubric
from vlmbench.metrics import bootstrap, profiles
from vlmbench.metrics.agreement import agreement
from vlmbench.metrics.frame import to_jsonable, vqa_values

Asked = list[tuple[Item, bool]]
#: Kinds of question about one row: as it is, with the two answers in the other order, once more.
KINDS = ("score", "swapped", "repeat")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which answers are asked about, and how often.

    Attributes:
        skip_exact: Whether an open answer that is the reference itself scores 1 without a question.
        swap: Share of the questions to the judge that are put a second time with the answers in the other order.
        repeat: Share that are put once more, past the cache.
        controls: Share of the closed questions that are judged too, though their truth is known.
        seed: Decides which; by the example, so that all cells of a test set are checked on the same ones.
    """

    skip_exact: bool = True
    swap: float = 0.2
    repeat: float = 0.1
    controls: float = 0.2
    seed: int = 0


def plan(frame: pd.DataFrame, rubric: Rubric, sampling: Sampling) -> pd.DataFrame:
    """Return the rows of a predictions table that are judged, with what is asked about each.

    Returns:
        `example_id`, `group`, `answer_type`, `question`, `answer`, `prediction`; `known`: the strict metric of each, 0
        or 1; `exact`: whether it scores 1 without a question; `ask_score`, `ask_swapped`, `ask_repeat`: whether it is
        asked about.
    """
    kept = ["example_id", "group", "answer_type", "question", "answer", "prediction"]
    rows = frame[kept].assign(known=strict(frame))
    is_open = rows["answer_type"] == "open"
    control = ~is_open & drawn(rows["example_id"], sampling.controls, f"control {sampling.seed}")
    rows = rows[is_open | control].sort_values("example_id", kind="stable").reset_index(drop=True)
    same = [rubric.exact(*pair) for pair in zip(rows["answer"], rows["prediction"], strict=True)]
    # Not of controls: whether the judge knows the truth would be answered by not asking it.
    rows["exact"] = np.array(same, dtype=bool) & (rows["answer_type"] == "open") & sampling.skip_exact
    rows["ask_score"] = ~rows["exact"]
    for kind, share in (("swapped", sampling.swap), ("repeat", sampling.repeat)):
        rows[f"ask_{kind}"] = rows["ask_score"] & drawn(rows["example_id"], share, f"{kind} {sampling.seed}")
    return rows


def strict(frame: pd.DataFrame) -> np.ndarray:
    """Return the strict metric of each row: exact match of open answers, the choice of closed ones."""
    from vlmbench.metrics.answers import normalise

    closed = frame["answer_type"] == "closed"
    out = np.array(
        [float(normalise(a) == normalise(p)) for a, p in zip(frame["answer"], frame["prediction"], strict=True)]
    )
    if closed.any():  # alone, so that nothing is scored that takes torch
        out[closed.to_numpy()] = vqa_values(frame[closed])["closed_accuracy"]
    return out


def drawn(ids: Sequence[str] | pd.Series, share: float, seed: str) -> np.ndarray:
    """Return which examples a seeded draw takes, each by its id alone."""
    digests = (hashlib.sha256(f"{seed} {name}".encode()).digest()[:8] for name in ids)
    return np.array([int.from_bytes(digest, "big") / 2**64 < share for digest in digests], dtype=bool)


def asked(rows: pd.DataFrame) -> Asked:
    """Return the questions about the rows of a plan: first all of the first kind, then the others, see `KINDS`."""
    out: Asked = []
    for kind in KINDS:
        taken = rows[rows[f"ask_{kind}"]]
        for question, reference, answer in zip(taken["question"], taken["answer"], taken["prediction"], strict=True):
            out.append((Item(question, reference, answer, swapped=kind == "swapped"), kind == "repeat"))
    return out


def judged(rows: pd.DataFrame, rulings: Sequence[Ruling]) -> pd.DataFrame:
    """Return a plan with its rulings, in the order of `asked`, as the table that is kept.

    Returns:
        `example_id`, `group`, `answer_type`, `known`, `exact`; `unparsed`: whether the reply could not be read;
        `score`, `swapped_score`, `repeat_score`: from 0 to 1, NaN where not asked or not read; `raw`, `swapped_raw`,
        `repeat_raw`: the replies, empty where not asked.
    """
    table = rows[["example_id", "group", "answer_type", "known", "exact"]].copy()
    rest = list(rulings)
    for kind in KINDS:
        mask = rows[f"ask_{kind}"].to_numpy()
        own, rest = rest[: mask.sum()], rest[mask.sum() :]
        score = np.where(table["exact"] & (kind == "score"), 1.0, np.nan)
        score[mask] = [np.nan if ruling.score is None else ruling.score for ruling in own]
        raw = np.full(len(rows), "", dtype=object)
        raw[mask] = [ruling.reply for ruling in own]
        if kind == "score":
            table["unparsed"] = mask & np.isnan(score)
        name = "" if kind == "score" else f"{kind}_"
        table[f"{name}score"], table[f"{name}raw"] = score, raw
    return table


def summarise(
    table: pd.DataFrame, predictions: pd.DataFrame, judge: Judge, rulings: Sequence[Ruling], *, resamples: int
) -> dict[str, Any]:
    """Return what a cell's judgements come to.

    Returns:
        `metrics`: `judge_score` and, of the same open answers, `open_exact_match`, with intervals; for the profile
        `medvlmbench` also `judge_score_overall`, of all questions, the closed ones by its substring convention.
        `checks`: see `checks`. `counts` and `answers`: rows by what came of them; tokens; and who replied.
    """
    is_open = table["answer_type"] == "open"
    values = {"judge_score": table["score"], "open_exact_match": table["known"]}
    metrics = {}
    if is_open.any():
        opened = {name: column[is_open] for name, column in values.items()}
        metrics = bootstrap.intervals(opened, table["group"][is_open].to_numpy(), n_resamples=resamples)["metrics"]
    if judge.rubric.profile == "medvlmbench":
        metrics |= overall(table, predictions, resamples)
    answers = [ruling.answer for ruling in rulings]
    counts = {
        "open": int(is_open.sum()),
        "exact": int(table["exact"].sum()),
        "unparsed": int((table["unparsed"] & is_open).sum()),
        "controls": int((~is_open).sum()),
        "controls_unparsed": int((table["unparsed"] & ~is_open).sum()),
    }
    return {
        "metrics": to_jsonable(metrics),
        "checks": to_jsonable(checks(table, resamples)),
        "counts": counts,
        "replies": {**counted(answers), **who(answers)},
    }


def checks(table: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """Return how far the judge agrees, each as `metrics.agreement.agreement`.

    Returns:
        `position`: with itself, the answers in the other order; `repeat`: with itself, asked again; `controls`: with
        the truth about closed questions; `exact_match`: with exact match about open answers that it was asked about.
    """
    closed = (table["answer_type"] == "closed").to_numpy()
    put = ~table["exact"].to_numpy()
    of = {
        "position": ("score", "swapped_score", put),
        "repeat": ("score", "repeat_score", put),
        "controls": ("known", "score", closed),
        "exact_match": ("known", "score", ~closed & put),
    }
    return {
        name: agreement(table[left][rows], table[right][rows], table["group"][rows].to_numpy(), n_resamples=resamples)
        for name, (left, right, rows) in of.items()
    }


def overall(table: pd.DataFrame, predictions: pd.DataFrame, resamples: int) -> dict[str, Any]:
    """Return `judge_score_overall`: open scores and closed accuracies as one mean over all questions.

    Closed answers count as in the profile `medvlmbench` of `metrics.profiles`, where "no" is in "normal".
    """
    scores = table[table["answer_type"] == "open"].set_index("example_id")["score"]
    values = predictions["example_id"].map(scores).to_numpy(dtype=np.float64, copy=True)
    closed = (predictions["answer_type"] == "closed").to_numpy()
    if closed.any():
        columns = [predictions[name][closed].tolist() for name in ("prediction", "answer", "answer_type", "options")]
        columns[-1] = [list(options) for options in columns[-1]]
        values[closed] = profiles.evaluate("medvlmbench", *columns)["closed_accuracy"]
    groups = predictions["group"].to_numpy()
    return bootstrap.intervals({"judge_score_overall": values}, groups, n_resamples=resamples)["metrics"]
