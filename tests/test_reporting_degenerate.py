"""Predictions that nothing can be told from: the report gives the reason, and neither stops nor tells anything else."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_records import make_record
from synthetic_study import diagnosis_frame, vqa_frame, write_cell

from vlmbench.records.store import write_predictions
from vlmbench.reporting.html import write_report
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.ordering import newest
from vlmbench.reporting.study import Settings, Study
from vlmbench.reporting.without_picture import tables


def _write(root: Path, change, *, late: bool) -> None:
    """A pair of two untuned cells, changed before both records are written or after that of one."""
    for noise, model in enumerate(("tiny_clip", "tiny_medclip")):
        frame = diagnosis_frame(60, 0.75, noise=noise)
        path = write_cell(
            root, frame if late else change(frame), model, "phantom_radiograph", finetune="zero_shot", scope=""
        )
        if late and model == "tiny_clip":
            write_predictions(path.parent, change(frame))


def _report(root: Path) -> tuple[list[dict[str, str]], str]:
    paths = write_report(root / "runs", root / "out", settings=Settings(resamples=50), paper=True)
    with (root / "out" / "verdicts.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file)), paths.html.read_text(encoding="utf-8")


def _with(frame: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    values = frame[column].astype(object)
    values.iloc[3] = value
    return frame.assign(**{column: values.infer_objects()})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda frame: _with(frame, "score_1", np.nan), "1 of 120 scores are not finite"),
        (lambda frame: _with(frame, "score_1", np.inf), "1 of 120 scores are not finite"),
        (lambda frame: _with(frame, "example_id", "e00004"), "1 rows repeat an example_id"),
        (lambda frame: _with(frame, "group", None), "1 of 60 rows have no"),
        (lambda frame: _with(frame, "target", 7), "1 of 60 targets are none of 0..1"),
        (lambda frame: frame.drop(columns="score_1"), "got shape (60, 1)"),
        (lambda frame: frame.iloc[:50], "its predictions are of 50 examples, its record of 60"),
    ],
)
def test_predictions_that_are_not_those_of_the_record_give_the_reason(tmp_path, change, told):
    _write(tmp_path / "runs", change, late=True)
    verdicts, page = _report(tmp_path)
    assert not [row for row in verdicts if row["verdict"] in ("better", "worse", "equivalent")]
    assert told in page


def test_a_test_set_of_one_class_gives_the_reason(tmp_path):
    _write(tmp_path / "runs", lambda frame: frame.assign(target=0), late=False)
    verdicts, page = _report(tmp_path)
    assert not verdicts
    assert "the metric is undefined on these examples" in page


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.assign(score_0=0.5, score_1=0.5),
        lambda frame: frame.assign(score_0=1.0 - frame["target"], score_1=frame["target"].astype(float)),
        lambda frame: frame.assign(group=np.where(frame["target"] == 1, "one", frame["group"])),
    ],
    ids=["constant", "perfect", "all positives of one patient"],
)
def test_what_does_not_vary_is_no_verdict(tmp_path, change):
    _write(tmp_path / "runs", change, late=False)
    verdicts, _ = _report(tmp_path)
    assert {row["verdict"] for row in verdicts} <= {"cannot tell", ""}
    assert all(row["reason"] and not row["low"] for row in verdicts)


def test_answers_that_are_none_of_their_options_and_a_metric_that_is_unknown_give_the_reason(tmp_path):
    root = tmp_path / "runs"
    for noise, model in enumerate(("tiny_llava", "tiny_llava_med")):
        frame = vqa_frame(40, 0.7, noise=noise)
        path = write_cell(root, frame, model, "phantom_fundus", task="vqa", finetune="zero_shot", scope="")
        closed = frame["answer_type"] == "closed"
        write_predictions(path.parent, frame.assign(answer=frame["answer"].mask(closed, "perhaps")))
    frame = diagnosis_frame(40, 0.7, noise=0)
    write_cell(root, frame, "tiny_clip", "phantom_radiograph", finetune="zero_shot", scope="", primary_metric="recall")
    verdicts, page = _report(tmp_path)
    assert not verdicts
    assert "the answer &#39;perhaps&#39; is none of the options" in page
    assert "the record does not hold this metric" in page


def test_recipes_of_one_name_are_no_seeds_of_each_other(tmp_path):
    for rank, auroc in ((4, 0.6), (64, 0.9)):
        config = make_record()["config"] | {"finetune": {"name": "lora", "rank": rank}}
        write_cell(tmp_path, diagnosis_frame(100, auroc, noise=rank), "tiny_clip", "phantom_radiograph", config=config)
    current, _ = newest(load_rows(tmp_path)[0])
    (table,) = tables(Study(tmp_path, current, settings=Settings(resamples=50)))
    assert [(line.variant, len(line.rows)) for line in table.lines] == [("finetune.rank=4", 1), ("finetune.rank=64", 1)]
