"""The sections on published conventions and on calibration: their numbers, their choice of cells, their words."""

import json
import re

import numpy as np
import pytest
from synthetic_records import make_record, write_record
from synthetic_study import diagnosis_frame, vqa_frame, write_cell

from vlmbench.reporting import calibration, profiles
from vlmbench.reporting.detailed import detailed
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.study import Settings, Study


def study(root, **settings):
    rows, unreadable = load_rows(root)
    return Study(root, rows, (), unreadable, Settings(**{"resamples": 100, **settings}))


def words(section):
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", re.sub("<script.*?</script>", "", section.body, flags=re.S)))


def figures(section):
    return [json.loads(found) for found in re.findall(r"<script[^>]*>(.*?)</script>", section.body, re.S)]


def test_the_substring_trap_shows_as_a_difference_with_its_interval(tmp_path):
    frame = vqa_frame(60, 1, noise=0)
    closed_no = frame["answer"] == "no"
    frame.loc[closed_no, "prediction"] = "<b>It</b> looks normal"
    write_cell(tmp_path, frame, "tiny_llava", "phantom_fundus", task="vqa", finetune="zero_shot", scope="")
    made = profiles.section(study(tmp_path))
    assert made is not None
    told = words(made)
    n = int((frame["answer_type"] == "closed").sum())
    assert f"{int(closed_no.sum())} closed answers count as right by substring alone" in told
    assert "looks no rmal" in told  # what is marked stands apart
    assert f"{int(closed_no.sum())} gained, 0 lost" in told
    assert re.search(rf"\+{closed_no.sum() / n:.3f} \[\+0\.\d+, \+0\.\d+\]", told)
    assert "none of these cells was scored" in told
    # All open answers are the reference itself, by every convention.
    assert "+0.000 no interval: the same for every example" in told
    assert "<b>It" not in made.body


def test_auroc_by_the_published_convention_is_near_ours_and_narrower_with_many_images_a_patient(tmp_path):
    frame = diagnosis_frame(40, 0.8, noise=0, per_patient=1).loc[lambda one: one.index.repeat(9)]
    frame["example_id"] = [f"e{i}" for i in range(len(frame))]  # nine images of each patient, all alike
    write_cell(tmp_path, frame, "tiny_clip", "phantom_fundus", resamples=300)
    told = words(profiles.section(study(tmp_path)))
    ours, published = re.findall(r"(0\.\d+) \[(0\.\d+), (0\.\d+)\]", told)[-2:]
    ours, published = np.array(ours, float), np.array(published, float)
    assert published[0] == pytest.approx(ours[0], abs=0.005)
    assert published[2] - published[1] < 0.5 * (ours[2] - ours[1])


def test_calibration_of_cells_is_shown_with_intervals_and_curves(tmp_path):
    frame = diagnosis_frame(200, 0.8, noise=0)
    path = write_cell(tmp_path, frame, "tiny_clip", "phantom_fundus")
    made = calibration.section(study(tmp_path))
    told = words(made)
    assert re.search(r"0\.\d+ \[0\.\d+, 0\.\d+\] chance: to 0\.\d+", told)
    assert "sensitivity at 90 % specificity" in told
    (figure,) = figures(made)
    curve = figure["data"][1]
    identity = json.loads(path.read_text(encoding="utf-8"))["identity"]
    assert all(set(point.split()) == {identity} for point in curve["ids"])
    assert len(set(curve["ids"])) == len(curve["x"]) == len(curve["error_y"]["array"])
    assert sum(curve["customdata"]) == 200
    assert "Each class by itself" not in told


def test_each_class_of_a_multi_class_task_has_a_line(tmp_path):
    rng = np.random.default_rng(0)
    frame = diagnosis_frame(90, 0.8, noise=0)
    frame["target"] = rng.integers(3, size=90)
    scores = rng.dirichlet([1, 1, 1], size=90)
    for k in range(3):
        frame[f"score_{k}"] = scores[:, k]
    data = make_record()["data"] | {"labels": ["cyst", "mass", "<i>"]}
    write_cell(tmp_path, frame, "tiny_clip", "phantom_fundus", data=data)
    made = calibration.section(study(tmp_path))
    assert made is not None
    assert re.search(rf"cyst {(frame['target'] == 0).sum()} 0\.\d+ \[0\.\d+, 0\.\d+\]", words(made))
    assert "&lt;i&gt;" in made.body
    assert "classwise ECE" in words(made)


def test_without_predictions_there_is_nothing_to_say_and_some_missing_are_told(tmp_path):
    write_record(tmp_path, make_record())
    assert calibration.section(study(tmp_path)) is None
    assert profiles.section(study(tmp_path)) is None
    write_cell(tmp_path, diagnosis_frame(40, 0.8, noise=0), "tiny_medclip", "phantom_fundus")
    assert "Of 1 of these the predictions could not be read" in words(calibration.section(study(tmp_path)))


def test_cells_are_chosen_by_validation_and_the_rule_is_told(tmp_path):
    def write(value, **cell):
        write_record(tmp_path, make_record(**cell, selection={"metric": "val/auroc", "value": value}))

    for seed in (0, 1):
        write(0.9 - seed, finetune="lora", seed=seed)  # 200 examples each
        write(0.5, finetune="linear_probe", scope="", seed=seed)
    write(None, finetune="zero_shot", scope="")
    rows = load_rows(tmp_path)[0]
    everything = detailed(rows, "diagnosis", 1000)
    assert (len(everything.rows), everything.rule) == (5, "")
    one_seed = detailed(rows, "diagnosis", 700)
    assert one_seed.rule == "one seed of each cell"
    assert [(row.finetune, row.seed) for row in one_seed.rows] == [("zero_shot", 0), ("linear_probe", 0), ("lora", 0)]
    best = detailed(rows, "diagnosis", 400)
    assert "zero-shot and the tuned cell that was best on validation" in best.rule
    assert [row.finetune for row in best.rows] == ["zero_shot", "lora"]
    assert [row.finetune for row in detailed(rows, "diagnosis", 200).rows] == ["lora"]
    assert detailed(rows, "diagnosis", 10).rule.endswith("the first 1 of 1")
    assert detailed(rows, "vqa", 10).rows == ()
