"""Learning curves: where one reaches another by hand, and the section on a study with fewer labels."""

import math

import numpy as np
import pytest
from synthetic_records import make_record
from synthetic_study import diagnosis_frame, write_cell

from vlmbench.metrics.curves import interval_of_sizes, size_reaching
from vlmbench.reporting import curves
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.study import Settings, Study

HOME = "phantom_radiograph"


def test_a_level_is_reached_where_the_line_between_two_sizes_says():
    levels = np.array([[0.5, 0.6, 0.9, 0.5], [0.7, 0.55, 0.9, np.nan], [0.8, 0.7, 0.9, 0.6]])
    found = size_reaching([10, 100, 1000], levels, np.array([0.6, 0.9, 0.8, 0.7]))
    assert found[0] == pytest.approx(10**1.5)
    assert found[1] == math.inf
    assert found[2] == pytest.approx(10)
    assert np.isnan(found[3])
    # A curve that falls and rises again: the first time counts, however often it crosses.
    assert size_reaching([1, 10, 100, 1000], [[0.0], [1.0], [0.0], [1.0]], [0.5])[0] == pytest.approx(10**0.5)


def test_an_interval_of_sizes_may_end_in_never():
    assert interval_of_sizes(np.array([10.0] * 50 + [math.inf] * 50), 0.9) == (10.0, math.inf)
    assert np.isnan(interval_of_sizes(np.array([np.nan]), 0.9)).all()


def test_the_section_says_how_many_labels_the_specialist_saves(tmp_path):
    """The generalist has at 200 examples what the specialist has at 20, and at 400 not what that has at 400."""
    levels = {"tiny_clip": {20: 0.6, 200: 0.8, 400: 0.84}, "tiny_medclip": {20: 0.8, 200: 0.88, 400: 0.93}}
    for number, (model, by_size) in enumerate(levels.items()):
        for size, auroc in by_size.items():
            for seed in range(3):
                frame = diagnosis_frame(600, auroc, noise=100 * number + 10 * len(str(size)) + seed)
                domain = HOME if size == 400 else f"{HOME}@{size // 2}shots" + (f"-s{seed}" if seed else "")
                data = make_record(model, HOME)["data"]
                data = {**data, "splits": {**data["splits"], "train": {"examples": size}}}
                write_cell(tmp_path, frame, model, domain, finetune="linear_probe", scope="", seed=seed, data=data)
    rows, _ = load_rows(tmp_path)
    study = Study(tmp_path, rows, settings=Settings(resamples=300))
    made = curves.section(study)
    assert made is not None
    body = made.body
    start = body.index("Labels that the specialist saves")
    told = body[body.index("<tbody>", start) :].split("<tr ")[1:]
    assert len(told) == 3
    assert "10shots" in told[0]
    needed = told[0].rsplit('<td class="n">', 1)[1]
    assert 100 < float(needed.split("<")[0]) < 300
    assert told[2].rsplit('<td class="n">', 1)[1].startswith("not reached")
    assert "&lt; 0.001" in told[0]
    assert curves.section(Study(tmp_path, [row for row in rows if "@" not in row.domain])) is None
