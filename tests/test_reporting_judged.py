"""The section on judged answers, from judgements that are written without a judge."""

import json

import numpy as np
import pandas as pd
import pytest
from synthetic_records import make_record, write_record
from synthetic_study import vqa_frame

from vlmbench.records.judgements import predictions_digest, write_judgements
from vlmbench.records.store import write_predictions
from vlmbench.reporting import judged
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.study import Settings, Study


def write_judged(root, model, share, *, judge="host/v1/grader", seed=0, n=300, unread=0, finetune="zero_shot"):
    """A cell whose open answers the judge calls right with probability `share`."""
    record = make_record(model, task="vqa", finetune=finetune, scope="", seed=seed)
    record["counts"] = {"open": 1}
    folder = write_record(root, record).parent
    frame = vqa_frame(n, 0.5, noise=1)
    write_predictions(folder, frame)
    if judge is None:
        return folder
    rows = frame[frame["answer_type"] == "open"]
    rng = np.random.default_rng([seed, len(model)])
    score = (rng.random(len(rows)) < share).astype(float)
    score[:unread] = np.nan
    table = pd.DataFrame(
        {
            **{name: rows[name].to_numpy() for name in ("example_id", "group", "answer_type")},
            "known": 0.0,
            "exact": False,
            "unparsed": np.isnan(score),
            "score": score,
            "swapped_score": np.where(np.arange(len(rows)) % 2, score, np.nan),
            "repeat_score": np.nan,
        }
    )
    estimate = {"value": float(np.nanmean(score)), "low": 0.1, "high": 0.9}
    summary = {
        "profile": "strict",
        "identity": {"judge": {"name": judge}, "predictions": predictions_digest(folder)},
        "judge": {"name": judge, "settings": {}},
        "prompt": {"version": 1, "sha256": "0"},
        "metrics": {"judge_score": estimate, "open_exact_match": estimate},
        "counts": {"open": len(rows), "exact": 0, "unparsed": unread},
        "replies": {"models": {"grader": len(rows)}},
    }
    write_judgements(folder, "strict", table, summary)
    return folder


def study_of(root, **settings):
    return Study(root, load_rows(root)[0], settings=Settings(**({"resamples": 500} | settings)))


def test_without_a_judge_the_report_says_so_and_gives_no_number(tmp_path):
    write_judged(tmp_path, "tiny_llava", 0.5, judge=None)
    made = judged.section(study_of(tmp_path))
    assert made is not None
    assert "No judge" in made.body
    assert "<table" not in made.body
    assert "0.000" not in made.body


def test_a_study_without_open_answers_has_no_section(tmp_path):
    write_record(tmp_path, make_record("tiny_clip"))
    assert judged.section(study_of(tmp_path)) is None


def test_the_gap_is_paired_over_what_both_sides_have_readable(tmp_path):
    folders = [
        write_judged(tmp_path, "tiny_llava", 0.3, unread=7),
        write_judged(tmp_path, "tiny_llava_med", 0.8),
    ]
    study = study_of(tmp_path)
    found, left_out = judged.collect(study, study.rows)
    assert left_out == []
    (gap,) = judged.gaps(study, found)
    left, right = (pd.read_parquet(folder / "judgements.parquet")["score"].to_numpy() for folder in folders)
    readable = ~np.isnan(left)
    assert gap.difference.estimate == pytest.approx(left[readable].mean() - right[readable].mean())
    assert gap.difference.low < gap.difference.estimate < gap.difference.high < 0
    assert not gap.difference.single_seed
    (check,) = judged.checks(found)
    position = check.found["the same answers in the other order"]
    assert position["equal"]["value"] == 1
    assert check.found["the same question once more"] == {"n": 0}
    made = judged.section(study)
    assert made is not None
    assert f"{700 / len(left):.2f} %" in made.body
    assert f'data-cells="{study.rows[0].identity}"' in made.body


def test_seeds_are_averaged_and_their_noise_is_in_the_interval(tmp_path):
    for seed in (0, 1):
        write_judged(tmp_path, "tiny_llava", 0.4, seed=seed, finetune="lora")
        write_judged(tmp_path, "tiny_llava_med", 0.6, seed=seed, finetune="lora")
    study = study_of(tmp_path)
    (gap,) = judged.gaps(study, judged.collect(study, study.rows)[0])
    assert len(gap.cells) == 4
    assert np.isfinite(gap.difference.se)


def test_other_judges_are_not_compared_and_other_predictions_not_shown(tmp_path):
    write_judged(tmp_path, "tiny_llava", 0.4)
    folder = write_judged(tmp_path, "tiny_llava_med", 0.6, judge="host/v1/another")
    study = study_of(tmp_path)
    found, _ = judged.collect(study, study.rows)
    assert judged.gaps(study, found) == []
    write_predictions(folder, vqa_frame(300, 0.9, noise=5))
    found, left_out = judged.collect(study, study.rows)
    assert len(found) == 1
    assert "run again" in left_out[0][1]
    (folder / "judge.json").write_text(json.dumps({"schema": 99}))
    assert "another version" in judged.collect(study, study.rows)[1][0][1]
