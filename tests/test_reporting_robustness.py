"""What worse images cost, and what is above the trend: against the records and against what is planted."""

import numpy as np
import pytest
from scipy.special import expit, logit
from synthetic_study import diagnosis_frame, write_cell

from vlmbench.metrics.robustness import effective
from vlmbench.reporting import robustness
from vlmbench.reporting.corruptions import change, damaged
from vlmbench.reporting.lines import drawn, lines_of
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.section import environment
from vlmbench.reporting.study import Settings, Study

HOME = "phantom_radiograph"
LIGHT, HEAVY = ("noise", 1), ("noise", 2)


def damage(kind, severity):
    return {
        "model": {"name": "m"},
        "task": {"name": "diagnosis"},
        "finetune": {"name": "lora"},
        "domain": {"name": HOME, "corruption": kind, "severity": severity},
        "trainer": {"lr": 1},
    }


def write(root, model, finetune, auroc, lost, number, seeds=(0, 1, 2)):
    """Clean cells and tests under noise; `lost` is by severity."""
    for seed in seeds if finetune != "zero_shot" else (0,):
        told = {"finetune": finetune, "seed": seed, "scope": ""}
        frames = [diagnosis_frame(400, auroc - d, noise=10 * number + seed) for d in (0, *lost)]
        write_cell(root, frames[0], model, HOME, **told, config=damage("none", 3))
        for severity, frame in enumerate(frames[1:], start=1):
            where = told if finetune == "zero_shot" else {**told, "trained_on": HOME}
            write_cell(root, frame, model, f"{HOME}~noise{severity}", **where, config=damage("noise", severity))


def study_of(root, **settings):
    rows, _ = load_rows(root)
    return Study(root, rows, settings=Settings(resamples=300, **settings))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("damaged")
    write(root, "tiny_clip", "lora", 0.85, (0.1, 0.3), 1)
    write(root, "tiny_medclip", "lora", 0.85, (0.0, 0.02), 2)
    write(root, "tiny_clip", "zero_shot", 0.6, (0.0, 0.05), 3)
    return study_of(root)


def test_changes_are_those_of_the_records_and_hold_what_is_planted(study):
    cells = lines_of(row for row in study.rows if row.domain == HOME)
    made = {one.clean.name: one for one in damaged([row for row in study.rows if "~" in row.domain], cells)}
    assert set(made) == {"tiny_clip, lora", "tiny_medclip, lora", "tiny_clip, zero_shot"}
    one = made["tiny_clip, lora"]
    known = drawn(study, one.rows)
    by_domain = {d: np.mean([r.primary.value for r in one.rows if r.domain == d]) for d in {r.domain for r in one.rows}}
    light, heavy, both = (change(one, known, steps) for steps in ([LIGHT], [HEAVY], [LIGHT, HEAVY]))
    assert light
    assert heavy
    assert both
    assert heavy.estimate == pytest.approx(by_domain[f"{HOME}~noise2"] - by_domain[HOME], abs=1e-12)
    assert both.estimate == pytest.approx((light.estimate + heavy.estimate) / 2)
    assert change(one, known, [("blur", 1)]) is None


def test_the_section_tells_who_loses_more(study):
    made = robustness.section(study)
    assert made is not None
    body = made.body
    start = body.index("Who loses more")
    row = body[start : body.index("</tbody>", start)]
    assert row.count("<tr data-cells") == 1
    assert "tiny_medclip" in row
    assert "&lt; 0.001" in row
    assert "3 of the at least 4 models that a line needs" in body


def test_nothing_is_said_where_all_was_tested_at_home(tmp_path):
    write(tmp_path, "tiny_clip", "lora", 0.8, (), 1)
    assert robustness.section(study_of(tmp_path)) is None
    assert environment().get_template("robustness.html.j2")


def test_a_model_above_the_trend_of_others_is_told_by_how_much():
    rng = np.random.default_rng(0)
    home = np.array([0.6, 0.7, 0.8, 0.9, 0.85])
    away = expit(0.8 * logit(home) - 0.3)
    away[4] += 0.1
    draws = [np.clip(v[:, None] + 0.01 * rng.normal(size=(5, 200)), 0, 1) for v in (home, away)]
    baseline = np.array([True] * 4 + [False])
    made = effective((home, draws[0]), (away, draws[1]), baseline, 1000)
    assert (made.slope, made.intercept) == pytest.approx((0.8, -0.3))
    assert made.above[4] == pytest.approx(0.1)
    assert np.isnan(made.above[:4]).all()  # three others make no line
    assert np.nanstd(made.draws[4]) == pytest.approx(0.013, abs=0.006)
    fewer = effective((home[1:], draws[0][1:]), (away[1:], draws[1][1:]), baseline[1:], 1000)
    assert fewer.reason.startswith("3 of the at least 4")
    alike = effective((home * 0 + 0.7, draws[0]), (away, draws[1]), baseline, 1000)
    assert "too alike" in alike.reason
