"""The section that scores the same predictions by our convention and by published ones, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vlmbench.metrics import bootstrap
from vlmbench.metrics.answers import tokens
from vlmbench.metrics.diagnosis import one_vs_rest
from vlmbench.metrics.frame import diagnosis_arrays, profile_values
from vlmbench.metrics.profiles import PROFILES, auroc_over_items
from vlmbench.records.bertscores import bertscore_identity, read_bertscores
from vlmbench.records.store import RecordError
from vlmbench.reporting.detailed import detailed
from vlmbench.reporting.rows import Estimate, Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study

# Test examples that are scored: at 0.1 ms each by all profiles, 2 to 3 seconds.
BUDGET = 25_000
RESAMPLES = 1000
EXAMPLES = 3
# What is compared: heading, and of each profile the metric that a paper would print for it.
COMPARED = {
    "closed": {"strict": "closed_accuracy", "medvlmbench": "closed_accuracy", "llava_med": "closed_accuracy"},
    "choice": {"strict": "choice_accuracy", "medvlmbench": "choice_accuracy"},
    "open": {"strict": "open_exact_match", "medvlmbench": "open_accuracy", "llava_med": "open_recall"},
    "exact match": {"strict": "open_exact_match", "medvlmbench": "open_exact_match", "llava_med": "open_exact_match"},
    "F1": {"strict": "open_token_f1", "medvlmbench": "open_token_f1", "llava_med": "open_token_f1"},
}
# Where an answer is right or wrong, so that examples can change sides.
VERDICTS = {("closed", "medvlmbench"), ("closed", "llava_med"), ("choice", "medvlmbench"), ("open", "medvlmbench")}


@dataclass(frozen=True, slots=True)
class Line:
    """One cell by one comparison.

    Attributes:
        row: The cell.
        n: Number of examples that the comparison applies to.
        values: Of each profile.
        differences: Of each published profile, its value minus the strict one, paired by example.
        gained: Of each published profile, how many wrong answers become right; None where the metric is no verdict.
        lost: Likewise, how many right ones become wrong.
    """

    row: Row
    n: int
    values: Mapping[str, Estimate]
    differences: Mapping[str, Estimate]
    gained: Mapping[str, int | None]
    lost: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Trap:
    """An answer that is right by substring alone."""

    row: Row
    answer: str
    before: str
    found: str
    after: str


def section(study: Study) -> Section | None:
    """Make the section; None without a prediction to score."""
    chosen = detailed(study.rows, "vqa", BUDGET)
    lines: dict[str, list[Line]] = {name: [] for name in COMPARED}
    traps: list[Trap] = []
    berts: list[tuple[Row, Estimate, str]] = []
    absent, trapped = 0, 0
    for row in chosen.rows:
        frame = study.predictions(row)
        if frame is None:
            absent += 1
            continue
        try:
            values = {profile: profile_values(frame, profile) for profile in PROFILES}
        except ValueError as error:
            study.lacking[row.path] = f"its predictions cannot be scored: {error}"
            absent += 1
            continue
        berts += _bertscore(row, frame, study)
        for name, line in _lines(row, frame, values, study).items():
            lines[name].append(line)
        here = list(_traps(row, frame, values))
        trapped += len(here)
        traps += here
    ranked = detailed(study.rows, "diagnosis", BUDGET)
    aurocs = [(row, found) for row in ranked.rows if (found := _published_auroc(row, study)) is not None]
    if not aurocs and not any(lines.values()):
        return None
    body = rendered(
        "profiles.html.j2",
        lines={name: found for name, found in lines.items() if found},
        compared=COMPARED,
        published=PROFILES[1:],
        chosen=chosen,
        absent=absent,
        traps=_shortest(traps),
        trapped=trapped,
        berts=berts,
        aurocs=aurocs,
        ranked=ranked,
    )
    return Section("profiles", "The same predictions by published conventions", body)


def _published_auroc(row: Row, study: Study) -> Estimate | None:
    """AUROC of a binary task by MedVLMBench's convention; None of other tasks, or without predictions."""
    frame = study.predictions(row)
    if frame is None or "target" not in frame or "score_2" in frame:
        return None
    task = one_vs_rest(*diagnosis_arrays(frame, multi_label=False))
    return Estimate.of(auroc_over_items(task, confidence=study.settings.confidence))


def _bertscore(row: Row, frame: pd.DataFrame, study: Study) -> list[tuple[Row, Estimate, str]]:
    """A cell's BERTScore and the encoder behind it; empty where it was not scored, or its predictions are others."""
    folder = study.folder(row)
    try:
        identity = bertscore_identity(folder)
        if identity is None:
            return []
        table = read_bertscores(folder)
    except RecordError as error:
        study.lacking[row.path] = str(error)
        return []
    groups = frame.set_index("example_id")["group"].loc[table["example_id"]].to_numpy()
    if not len(groups):
        return []
    scored = bootstrap.intervals(
        {"f1": table["f1"].to_numpy()},
        groups,
        n_resamples=min(study.settings.resamples, RESAMPLES),
        confidence=study.settings.confidence,
    )
    return [(row, Estimate.of(scored["metrics"]["f1"]), f"{identity['model']}, layer {identity['num_layers']}")]


def _lines(row: Row, frame: pd.DataFrame, values: Mapping[str, Mapping[str, Any]], study: Study) -> dict[str, Line]:
    columns: dict[str, Any] = {}
    for name, metrics in COMPARED.items():
        for profile, metric in metrics.items():
            if metric in values[profile]:
                columns[f"{name}/{profile}"] = values[profile][metric]
                change = values[profile][metric] - values["strict"][metrics["strict"]]
                # As a share, since intervals of metrics are made for [0, 1] and treat its ends as such.
                columns[f"{name}/{profile} - strict"] = (1 + change) / 2
    resamples = min(study.settings.resamples, RESAMPLES)
    scored = bootstrap.intervals(
        columns, frame["group"].to_numpy(), n_resamples=resamples, confidence=study.settings.confidence
    )["metrics"]
    estimates = {
        name: _difference(found) if name.endswith(" - strict") else Estimate.of(found) for name, found in scored.items()
    }
    made = {}
    for name, metrics in COMPARED.items():
        held = [profile for profile in metrics if f"{name}/{profile}" in columns]
        n = int((~np.isnan(columns[f"{name}/strict"])).sum()) if "strict" in held else 0
        if not n:
            continue
        moved = {
            profile: columns[f"{name}/{profile} - strict"] if (name, profile) in VERDICTS else None for profile in held
        }
        made[name] = Line(
            row=row,
            n=n,
            values={profile: estimates[f"{name}/{profile}"] for profile in held},
            differences={profile: estimates[f"{name}/{profile} - strict"] for profile in held},
            gained={p: None if change is None else int((change > 0.5).sum()) for p, change in moved.items()},
            lost={p: None if change is None else int((change < 0.5).sum()) for p, change in moved.items()},
        )
    return made


def _difference(found: Mapping[str, Any]) -> Estimate:
    """Take a difference that was scored as a share, (1 + difference) / 2."""
    share = Estimate.of(found)
    if share.interval is not None and len(set(share.interval)) == 1:
        return Estimate(2 * share.interval[0] - 1, reason="the same for every example")
    value, low, high = (None if end is None else 2 * end - 1 for end in (share.value, share.low, share.high))
    return Estimate(value, low, high, share.n_resamples, share.undefined, share.reason)


def _traps(row: Row, frame: pd.DataFrame, values: Mapping[str, Mapping[str, Any]]) -> Iterator[Trap]:
    """Closed answers that count as right by substring though the reference is no word of theirs."""
    gained = (values["medvlmbench"]["closed_accuracy"] == 1) & (values["strict"]["closed_accuracy"] == 0)
    for prediction, answer in frame.loc[gained, ["prediction", "answer"]].itertuples(index=False):
        start = prediction.lower().find(answer.lower())
        if start >= 0 and answer and answer.lower() not in tokens(prediction):
            end = start + len(answer)
            before, after = prediction[max(0, start - 60) : start], prediction[end : end + 60]
            yield Trap(row, answer, before, prediction[start:end], after)


def _shortest(traps: list[Trap]) -> list[Trap]:
    """A few, each with another text; the shortest say it best."""
    ranked = sorted(traps, key=lambda trap: (len(trap.before) + len(trap.after), trap.before, trap.after))
    texts = {(trap.before.lower(), trap.after.lower()): trap for trap in reversed(ranked)}
    return list(reversed(texts.values()))[:EXAMPLES]
