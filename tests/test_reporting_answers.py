"""The research questions are answered by the right cells, and in words no stronger than the tests."""

import dataclasses
import math

import numpy as np
import pytest
from synthetic_records import make_record, write_record
from synthetic_study import diagnosis_frame, write_cell, write_study

from vlmbench.metrics.comparison import Difference, holm
from vlmbench.reporting import answers, gaps
from vlmbench.reporting.beyond import beyond, beyond_text
from vlmbench.reporting.evidence import ENOUGH, resamples
from vlmbench.reporting.findings import find
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.ordering import newest
from vlmbench.reporting.questions import ask
from vlmbench.reporting.rates import rates
from vlmbench.reporting.study import Settings, Study
from vlmbench.reporting.telling import short_answer, statement
from vlmbench.reporting.verdicts import COLUMNS, latex_verdicts, verdict_rows
from vlmbench.reporting.wording import caveats, claim, judge, need, p_number

LEFT, RIGHT = "tiny_clip", "tiny_medclip"
SEEN, UNSEEN = "phantom_radiograph", "phantom_ultrasound"


def studied(root, **settings):
    current, older = newest(load_rows(root)[0])
    return Study(root, current, older, settings=Settings(**{"resamples": 400, **settings}))


def found(root, **settings):
    return find(studied(root, **settings))


def verdict_of(findings, question, domain=SEEN):
    (one,) = [
        each
        for each in findings.verdicts
        if (each.question.key, each.level, each.place.domain) == (question, "domain", domain)
    ]
    return one


def jittered(frame, sd):
    """The same scores with a little noise: a model that is nearly the same."""
    score = np.clip(frame["score_1"] + np.random.default_rng(1).normal(0, sd, len(frame)), 0, 1)
    return frame.assign(score_1=score, score_0=1 - score)


def test_planted_effects_are_named_and_nothing_else_is(tmp_path):
    planted = {SEEN: (0.9, 0.7), "phantom_fundus": (0.65, 0.85), "phantom_dermoscopy": (0.75, 0.76)}
    for number, (domain, (left, right)) in enumerate(planted.items()):
        write_cell(tmp_path, diagnosis_frame(300, left, noise=1, data=number), LEFT, domain, finetune="zero_shot")
        write_cell(tmp_path, diagnosis_frame(300, right, noise=2, data=number), RIGHT, domain, finetune="zero_shot")
    alike = diagnosis_frame(300, 0.8, noise=1, data=9)
    for model, frame in ((LEFT, alike), (RIGHT, jittered(alike, 0.005))):
        write_cell(tmp_path, frame, model, "alike", finetune="zero_shot", exposure="id")
    findings = found(tmp_path)
    assert verdict_of(findings, "rq1", SEEN).verdict == "better"
    assert verdict_of(findings, "rq1", "phantom_fundus").verdict == "worse"
    assert verdict_of(findings, "rq1", "alike").verdict == "equivalent"
    unclear = verdict_of(findings, "rq1", "phantom_dermoscopy")
    assert unclear.verdict == "cannot tell"
    assert unclear.needed > unclear.difference.n_groups
    assert "patients would be needed" in statement(unclear, findings)
    told = statement(verdict_of(findings, "rq1", "alike"), findings)
    assert f"{LEFT} is equivalent to {RIGHT} within ±0.02" in told
    ((word, answer),) = short_answer(findings.verdicts[0].question, "diagnosis", findings)
    assert word == "Cannot tell."
    assert "better in 1, worse in 1, equivalent in 1, cannot tell in 1" in answer
    assert "4 domains, 600 patients" in answer
    (wider,) = beyond(findings)
    own = findings.verdicts[0].difference
    assert wider.summary.n_domains == 4
    assert wider.summary.high - wider.summary.low > own.high - own.low
    assert "these 4 domains a random sample" in beyond_text(wider)
    assert "nan" not in beyond_text(wider)


def test_the_study_s_question_and_the_symmetric_one_are_told_apart(tmp_path):
    aurocs = {
        (LEFT, SEEN, "zero_shot"): 0.55,
        (LEFT, SEEN, "linear_probe"): 0.85,
        (RIGHT, SEEN, "zero_shot"): 0.65,
        (RIGHT, SEEN, "linear_probe"): 0.93,
    }
    write_study(tmp_path, aurocs, n=400, seeds=(0, 1, 2), seed_noise=0.002)
    findings = found(tmp_path)
    verdicts = {one.question.key: one.verdict for one in findings.verdicts}
    assert verdicts == {"rq1": "worse", "rq2_study": "better", "rq2_symmetric": "worse"}
    assert not verdict_of(findings, "rq2_symmetric").difference.single_seed
    assert len(verdict_of(findings, "rq2_study").matches[0].left.rows) == 3
    assert "(linear_probe) is better than tiny_medclip (zero_shot)" in statement(
        verdict_of(findings, "rq2_study"), findings
    )


def write_tuned(root, chosen, metric="val/auroc", **more):
    """Both models with two methods; lora is better on test, `chosen` on validation."""
    for number, model in enumerate((LEFT, RIGHT)):
        for finetune, auroc in (("linear_probe", 0.7), ("lora", 0.9)):
            by = metric if isinstance(metric, str) else metric[finetune]
            selection = {"metric": by, "value": 0.9 if finetune == chosen else 0.6}
            frame = diagnosis_frame(120, auroc, noise=number)
            write_cell(root, frame, model, UNSEEN, finetune=finetune, scope="", selection=selection, **more)


def test_validation_chooses_the_method_and_the_test_set_does_not(tmp_path):
    write_tuned(tmp_path, "linear_probe")
    one = verdict_of(found(tmp_path), "rq3", UNSEEN)
    assert {side.method.finetune for side in (one.matches[0].left, one.matches[0].right)} == {"linear_probe"}


def test_a_transfer_is_chosen_by_the_validation_of_the_cell_it_evaluates(tmp_path):
    write_tuned(tmp_path, "linear_probe")
    for number, model in enumerate((LEFT, RIGHT)):
        for finetune, auroc in (("linear_probe", 0.7), ("lora", 0.9)):
            frame = diagnosis_frame(120, auroc, noise=number, data=5)
            write_cell(tmp_path, frame, model, SEEN, finetune=finetune, scope="", trained_on=UNSEEN, selection=None)
    findings = found(tmp_path)
    (one,) = [each for each in findings.verdicts if each.question.key == "transfer"]
    assert {side.method.finetune for side in (one.matches[0].left, one.matches[0].right)} == {"linear_probe"}
    assert f"On {SEEN} (tuned on {UNSEEN}), both linear_probe" in statement(one, findings)


def test_a_lower_loss_is_the_better_one(tmp_path):
    write_tuned(tmp_path, "lora", "val/loss")
    assert verdict_of(found(tmp_path), "rq3", UNSEEN).matches[0].left.method.finetune == "linear_probe"


def test_methods_that_were_selected_by_different_metrics_have_gaps_and_no_verdict(tmp_path):
    write_tuned(tmp_path, "lora", {"linear_probe": "val/loss", "lora": "val/auroc"})
    findings = found(tmp_path)
    assert not findings.verdicts
    assert [one.matches[0].left.method.finetune for one in findings.methods] == ["linear_probe", "lora"]
    (refused,) = findings.refused
    assert "linear_probe by val/loss, lora by val/auroc" in refused.reason
    row = next(verdict_rows(findings))
    assert (row["level"], row["verdict"], row["sentence"]) == ("method", "", "")


def refusals(root, spoil):
    frame = diagnosis_frame(60, 0.8, noise=1)
    write_cell(root, frame, LEFT, SEEN, finetune="zero_shot")
    path = write_cell(root, frame, RIGHT, SEEN, finetune="zero_shot", seed=1)
    spoil(root, path, frame)
    findings = found(root)
    assert not findings.verdicts
    return " | ".join(one.reason for one in findings.refused)


def test_other_recipes_failures_missing_predictions_and_other_examples_are_refused_by_name(tmp_path):
    def rewrite(root, path, record, frame=None):
        path.unlink()
        (path.parent / "predictions.parquet").unlink()
        if frame is None:
            write_record(root, record)
        else:
            write_cell(root, frame, RIGHT, SEEN, finetune="zero_shot", **record)

    config = make_record(RIGHT, SEEN, finetune="zero_shot")["config"]
    config["trainer"]["max_epochs"] = 20
    cases = {
        "trainer.max_epochs: 10 against 20": lambda root, path, frame: rewrite(root, path, {"config": config}, frame),
        "failed: RuntimeError: boom": lambda root, path, frame: rewrite(
            root, path, make_record(RIGHT, SEEN, finetune="zero_shot", failed="boom")
        ),
        "no predictions beside the record": lambda root, path, frame: (path.parent / "predictions.parquet").unlink(),
        "not tested on the same examples": lambda root, path, frame: rewrite(root, path, {}, frame.iloc[:-2]),
    }
    for number, (reason, spoil) in enumerate(cases.items()):
        assert reason in refusals(tmp_path / str(number), spoil)


def test_subsets_corruptions_and_other_exposures_are_kept_apart(tmp_path):
    frame = diagnosis_frame(60, 0.8, noise=1)
    for model in (LEFT, RIGHT):
        for domain in (f"{SEEN}@16shots", f"{SEEN}~noise3"):
            write_cell(tmp_path, frame, model, domain, finetune="lora", exposure="id")
        write_cell(tmp_path, frame, model, "new", finetune="zero_shot", exposure="unknown")
        write_cell(tmp_path, frame, model, UNSEEN, trained_on=SEEN)
        write_cell(tmp_path, frame, model, f"{UNSEEN}~blur1", trained_on=SEEN)
        write_cell(tmp_path, frame, model, SEEN, finetune="zero_shot", seed=7, exposure="id")
    matches, refused = ask(studied(tmp_path).rows)
    asked = {(one.place.question.key, one.place.domain, one.place.trained_on) for one in matches if one.chosen}
    assert asked == {("rq1", SEEN, ""), ("unknown_shelf", "new", ""), ("transfer", UNSEEN, SEEN)}
    assert not refused


def test_all_verdicts_of_a_task_are_corrected_together(tmp_path):
    aurocs = {
        (model, domain, finetune): 0.7 + 0.02 * (model == LEFT) + 0.1 * (finetune == "lora")
        for model in (LEFT, RIGHT)
        for domain in (SEEN, "phantom_fundus", UNSEEN)
        for finetune in ("zero_shot", "lora")
    }
    write_study(tmp_path, aurocs, n=120)
    findings = found(tmp_path)
    family = findings.verdicts
    assert findings.tests == {"diagnosis": len(family)} == {"diagnosis": 10}  # 3 questions x (2 + mean), and rq3
    assert [one.p for one in family] == pytest.approx(holm([one.difference.p for one in family]))
    assert [one.p_equivalent for one in family] == pytest.approx(holm([one.difference.p_equivalent for one in family]))
    single = [one for one in family if one.level == "domain" and "lora" in one.matches[0].left.method.label]
    assert single
    assert all("One seed alone was trained" in statement(one, findings) for one in single)


def test_words_are_never_stronger_than_the_tests():
    rng = np.random.default_rng(3)
    for _ in range(400):
        estimate, se = rng.normal(0, 0.05), rng.exponential(0.03) + 1e-4
        p, p_equivalent = (rng.random(2) ** 4).tolist()
        n, single = int(rng.integers(2, 80)), bool(rng.random() < 0.5)
        tested = Difference(
            estimate, estimate - 2 * se, estimate + 2 * se, se, 30, p / 3, p_equivalent / 3, 3 * se, 500, n, single
        )
        verdict = judge(tested, p, p_equivalent, alpha=0.05)
        told = claim("A", "B", verdict, margin=0.02)
        assert told.startswith("A is better") == (p <= 0.05 and estimate > 0)
        assert told.startswith("A is worse") == (p <= 0.05 and estimate < 0)
        assert ("equivalent" in told) == (p > 0.05 and p_equivalent <= 0.05)
        number = p_number(p)
        assert p < 0.001 if number == "< 0.001" else float(number) >= p
        limits = " ".join(caveats(tested, verdict, p, alpha=0.05))
        assert ("One seed alone" in limits) == single
        assert ("rough" in limits) == (n < 30)
    two = Difference(0.1, 0.05, 0.15, 0.02, 3, 0.01, 1, 0.08, 500, 60, False, seed_freedom=1)
    assert "Two seeds of one side alone" in caveats(two, "better", 0.01, alpha=0.05)[0]
    few = Difference(0.0, -0.1, 0.1, 0.05, 5, 1, 0.6, 0.2, 90, 6, False)
    assert need(few, 90, 0.02) == "6 patients are too few to say how many would be needed."
    nan = math.nan
    untested = Difference(0.5, nan, nan, nan, nan, nan, nan, nan, nan, 1, False, "too few")
    assert judge(untested, math.nan, math.nan, alpha=0.05) == "cannot tell"
    assert "too few" in need(untested, math.nan, 0.02)


def test_seeds_that_make_more_noise_than_the_margin_are_named_before_patients():
    tested = Difference(0.01, -0.1, 0.12, 0.05, 4, 0.8, 0.4, 0.15, math.inf, 200, False)
    assert "more test patients alone would not settle it" in need(tested, math.inf, 0.02)
    assert "about 1\N{NARROW NO-BREAK SPACE}300 patients" in need(tested, 1234, 0.02)
    assert "would most likely have been found here" in need(tested, 150, 0.02)


def test_rates_count_intervals_and_few_comparisons_have_none(tmp_path):
    aurocs: dict[tuple[str, str, str], float] = {}
    for number in range(6):
        aurocs |= {(LEFT, f"d{number}", "lora"): 0.9, (RIGHT, f"d{number}", "lora"): 0.7 if number < 4 else 0.9}
    write_study(tmp_path, aurocs, n=160, exposure="ood")
    (one,) = rates(found(tmp_path))
    (win, low, high), (tie, *_), (loss, *_) = one.shares
    assert one.n == 6
    assert win >= 4 / 6
    assert win + tie + loss == pytest.approx(1)
    assert low is not None
    assert high is not None
    assert low <= win <= high
    assert low < high
    few = tmp_path / "few"
    write_study(few, {(LEFT, SEEN, "lora"): 0.9, (RIGHT, SEEN, "lora"): 0.7}, n=60)
    assert rates(found(few))[0].shares == ((1.0, None, None), (0.0, None, None), (0.0, None, None))


def test_the_sections_and_tables_hold_every_verdict_with_its_interval(tmp_path):
    aurocs = {
        (model, domain, finetune): 0.9 if model == LEFT else 0.7
        for model in (LEFT, RIGHT)
        for domain in (SEEN, "phantom_fundus")
        for finetune in ("zero_shot", "lora")
    }
    write_study(tmp_path, aurocs, n=100)
    study = studied(tmp_path)
    findings = find(study)
    top, plots = answers.section(study), gaps.section(study)
    assert top is not None
    assert plots is not None
    assert "tiny_clip is better than tiny_medclip" in top.body
    assert "at most 5 %" in top.body
    assert plots.body.count('<figure class="plot">') == 3
    for one in findings.verdicts:
        assert f"[{one.difference.low:.3f}, {one.difference.high:.3f}]" in plots.body
        assert f'data-cells="{" ".join(one.cells)}"' in top.body
    rows = list(verdict_rows(findings))
    assert [row["verdict"] for row in rows if row["verdict"]] == [one.verdict for one in findings.verdicts]
    assert all(set(row) == set(COLUMNS) for row in rows)
    table = latex_verdicts(findings)
    assert table.count(r"\multicolumn{6}") == 3
    assert r"tiny\_clip / tiny\_medclip" in table
    lines = [line for line in table.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(lines) == len(findings.verdicts) + 1
    assert all(line.count("&") == 5 for line in lines)


def test_a_large_study_is_drawn_less_often_and_a_small_one_as_often_as_asked(tmp_path):
    write_cell(tmp_path, diagnosis_frame(300, 0.8, noise=1), LEFT, SEEN, finetune="zero_shot")
    small = studied(tmp_path, resamples=10_000)
    assert resamples(small) == 10_000
    assert resamples(dataclasses.replace(small, rows=[*small.rows] * 5000)) == 10_000_000_000 // 1_500_000
    assert resamples(dataclasses.replace(small, rows=[*small.rows] * 200_000)) == ENOUGH
