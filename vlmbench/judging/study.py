"""Many cells before the judge: which are to be judged, what that takes, and the judging itself, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vlmbench.errors import UserError
from vlmbench.judging.cells import Asked, Sampling, asked, judged, plan, summarise
from vlmbench.judging.judge import Judge
from vlmbench.records.judgements import predictions_digest, read_summary, write_judgements
from vlmbench.records.store import read_predictions
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.ordering import newest

CHARACTERS_A_TOKEN = 4  # of English, roughly


class JudgeError(UserError):
    """There is nothing to judge, or what is there was judged otherwise; the message says what to do."""


@dataclass
class Case:
    """A cell that is to be judged.

    Attributes:
        folder: Of its record.
        predictions: Its table.
        rows: The plan of `cells.plan`.
        identity: What its judgements follow from; the same gives the same.
        done: Whether they are there already.
    """

    folder: Path
    predictions: pd.DataFrame
    rows: pd.DataFrame
    identity: dict[str, Any]
    done: bool

    @property
    def asked(self) -> Asked:
        """The questions to the judge."""
        return asked(self.rows)


def cases(records: Path, judge: Judge, sampling: Sampling, identity: dict[str, Any], *, overwrite: bool) -> list[Case]:
    """Read the finished VQA cells and transfers under a directory that have open answers.

    Args:
        records: The directory.
        judge: Who judges.
        sampling: What is asked about.
        identity: All that the judgements of any cell follow from, but its predictions.
        overwrite: Whether other judgements may be replaced.

    Raises:
        JudgeError: There is none, or one was judged by another judge.
        UserError: There are no records, or a file of theirs cannot be read.
    """
    rows, _ = load_rows(records)
    found, other = [], []
    for row in newest(rows)[0]:
        if not row.done or row.task != "vqa":
            continue
        folder = (records / row.path).parent
        predictions = read_predictions(folder)
        if not (predictions["answer_type"] == "open").any():
            continue
        own = identity | {"predictions": predictions_digest(folder)}
        summary = None if overwrite else read_summary(folder, judge.rubric.profile)
        done = summary is not None and summary["identity"] == own
        # Of other predictions: the cell was run again, and what was said of it counts for nothing.
        if summary is not None and not done and summary["identity"].get("predictions") == own["predictions"]:
            other.append((folder, {key for key in own if own[key] != summary["identity"].get(key)}))
        found.append(Case(folder, predictions, plan(predictions, judge.rubric, sampling), own, done))
    if other:
        folder, keys = other[0]
        raise JudgeError(
            f"{len(other)} cells have other judgements, {folder} the first: another {', '.join(sorted(keys))}. "
            "overwrite=true replaces them; the replies are kept either way."
        )
    if not found:
        raise JudgeError(f"{records} holds no finished VQA cell with open answers; train one first.")
    return found


def told(found: Sequence[Case], judge: Judge) -> str:
    """Return in a few lines what there is to ask; the judge counts its progress from here."""
    left = [case for case in found if not case.done]
    questions, new, characters = judge.missing(pair for case in left for pair in case.asked)
    total = sum(len(case.rows) for case in left)
    exact = sum(int(case.rows["exact"].sum()) for case in left)
    checked = {kind: sum(int(case.rows[f"ask_{kind}"].sum()) for case in left) for kind in ("swapped", "repeat")}
    closed = sum(int((case.rows["answer_type"] == "closed").sum()) for case in left)
    return (
        f"{len(left):,} of {len(found):,} cells to judge: {total - closed:,} open answers, of which {exact:,} are the "
        f"reference itself and score 1 unasked; {closed:,} closed ones as controls; {checked['swapped']:,} asked again "
        f"in the other order and {checked['repeat']:,} once more.\n"
        f"{questions:,} different questions, {questions - new:,} of them answered before: {new:,} to ask, about "
        f"{characters // CHARACTERS_A_TOKEN:,} tokens in and at most {new * judge.budget:,} out."
    )


def judge_all(found: Sequence[Case], judge: Judge, described: dict[str, Any], *, resamples: int) -> None:
    """Judge each cell that is not judged yet; what is done stays done, however the rest ends.

    Args:
        found: The cells.
        judge: Who judges.
        described: What a summary says of judge and settings.
        resamples: Bootstrap resamples behind each interval.

    Raises:
        HostedError: The endpoint fails for good, or most replies cannot be read.
    """
    for case in found:
        if case.done:
            continue
        rulings = judge.rule(case.asked)
        table = judged(case.rows, rulings)
        came = summarise(table, case.predictions, judge, rulings, resamples=resamples)
        summary = {"profile": judge.rubric.profile, "identity": case.identity, **described, **came}
        write_judgements(case.folder, judge.rubric.profile, table, summary)
