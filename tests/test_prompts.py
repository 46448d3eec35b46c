"""Candidate prompts: the same for both sides of a pair, chosen on validation alone, and kept for transfers."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from synthetic_records import make_record, write_record
from synthetic_study import diagnosis_frame, write_cell

from vlmbench.cell.domain import build_domain
from vlmbench.cell.wording import worded, wordings
from vlmbench.config import schema
from vlmbench.config.checks import encoded_splits
from vlmbench.config.faults import ConfigError, ImpossibleCellError
from vlmbench.config.prompts import VQA_PROMPTS, check_candidates, prompt_fault
from vlmbench.domains.wording import Wording, class_wordings, escaped, question_wordings, sampled, spoken
from vlmbench.metrics.wording import spread
from vlmbench.records.identity import relevant
from vlmbench.records.store import PROMPTS, read_predictions, write_table
from vlmbench.reporting import prompts
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.pairs import compare, obstacles
from vlmbench.reporting.study import Study

RADIOGRAPHS = schema.PhantomDomainConfig(
    name="phantom", modality="radiograph", modalities=["radiograph"], patients=20, negative_templates=["no {label}"]
)


def cell(kind="contrastive", task="diagnosis", finetune=None, **asked):
    model = schema.ContrastiveModelConfig if kind == "contrastive" else schema.GenerativeModelConfig
    tasks = {
        "diagnosis": schema.DiagnosisTaskConfig,
        "vqa": schema.VqaTaskConfig,
        "pretrain": schema.PretrainTaskConfig,
    }
    return schema.CellConfig(
        model=model(name="m", source="package:tiny_clip", role="generalist"),
        task=tasks[task](prompts=schema.PromptsConfig(**asked)),
        finetune=finetune or schema.ZeroShotConfig(),
        domain=RADIOGRAPHS,
    )


# ----------------------------------------------------------------------------------------------------- the grammar


@pytest.mark.parametrize("draw", [class_wordings, lambda n, seed: question_wordings("vqa", n, seed)])
def test_the_configured_one_is_first_and_more_candidates_only_add_to_few(draw):
    many = draw(12, 3)
    assert many[0] == Wording()
    assert len(many) == 12
    assert all(one not in many[:place] for place, one in enumerate(many))
    assert draw(5, 3) == many[:5]
    assert draw(5, 4) != many[:5]


def test_every_drawn_template_can_be_filled():
    for seed in range(30):
        for wording in class_wordings(8, seed)[1:]:
            assert len(wording.templates) == len(wording.negative_templates)
            assert all(text.count("{label}") == 1 for text in (*wording.templates, *wording.negative_templates))
        for wording in question_wordings("vqa", 8, seed)[1:]:
            assert {
                name: prompt_fault(wording.settings[name], *VQA_PROMPTS[name]) for name in VQA_PROMPTS
            } == dict.fromkeys(VQA_PROMPTS, "")
        for wording in question_wordings("diagnosis", 8, seed)[1:]:
            assert "{options}" in wording.settings["question"]
            assert "{label}" in wording.settings["question_multi_label"]


def test_a_cell_with_a_wording_asks_in_it_and_names_the_modality_of_its_domain():
    domain = build_domain(RADIOGRAPHS, "diagnosis")
    said = Wording(("{modality} showing {label}",), ("{modality} without {label}",))
    _, asked = worded(cell(), domain, said)
    assert asked.prompts.positive["normal"] == ("an X-ray showing normal",)
    _, elsewhere = worded(cell(), dataclasses.replace(domain, modality="ct+mri"), said)
    assert elsewhere.prompts.positive["normal"] == ("a CT scan or an MRI scan showing normal",)
    assert spoken("hologram") == "a diagnostic image"
    record = {"chosen": 1, "candidates": [Wording().as_record(), said.as_record()]}
    assert worded(cell(), domain, json.loads(json.dumps(record)))[1].prompts == asked.prompts
    assert worded(cell(), domain, None) == (cell(), domain)


def test_examples_in_context_are_of_the_train_split_and_of_the_questions_kind():
    config = cell("generative", "vqa", candidates=8, in_context=2)
    domain = build_domain(RADIOGRAPHS, "vqa")
    by_id = {example.id: example for example in domain.examples}
    found = wordings(config, domain)
    assert [bool(one.shown) for one in found] == [False, True] * 4
    shown = found[1]
    assert {by_id[name].split for name in shown.shown} == {"train"}
    test = next(e for e in domain.split("test") if e.answer_type == "closed" and e.options)
    prompt = shown.settings["prompt_closed"].format(question=test.question, options="yes or no")
    assert prompt.count("\n\n") == 2
    for name in shown.shown:
        assert (f"\n{by_id[name].answer}\n\n" in prompt) >= (by_id[name].answer_type == "closed")
    assert {by_id[name].answer_type for name in shown.shown} == {"open", "closed"}
    assert escaped("a {b}").format() == "a {b}"
    assert wordings(config, domain) == found


def test_validation_examples_are_the_same_for_everybody():
    assert list(sampled(5, 10, 0)) == [0, 1, 2, 3, 4]
    assert sampled(500, 20, 7) == sampled(500, 20, 7) != sampled(500, 20, 8)
    assert len(set(sampled(500, 20, 7))) == 20


# ------------------------------------------------------------------------------------------------------ the checks


def test_cells_without_candidates_keep_their_names():
    plain = relevant(dataclasses.asdict(cell()))
    assert "prompts" not in plain["task"]
    assert relevant(dataclasses.asdict(cell(candidates=0, seed=5, examples=9, in_context=0))) == plain
    several = [relevant(dataclasses.asdict(cell(candidates=4, seed=seed)))["task"]["prompts"] for seed in (0, 1)]
    assert several[0] != several[1]


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        (cell(finetune=schema.LinearProbeConfig(), candidates=4), ImpossibleCellError, "finetune=zero_shot"),
        (cell(task="pretrain", candidates=4), ImpossibleCellError, "asks nothing"),
    ],
)
def test_candidates_are_refused_where_there_is_nothing_to_choose(config, error, words):
    with pytest.raises(error, match=words):
        check_candidates(config)


def test_candidates_are_refused_on_what_they_would_be_chosen_by_and_on_several_devices():
    config = cell(candidates=4)
    check_candidates(config)
    config.trainer.devices = 2
    with pytest.raises(ConfigError, match=r"trainer\.devices=1"):
        check_candidates(config)
    config.trainer.devices, config.task.evaluate_on = 1, "val"
    with pytest.raises(ImpossibleCellError, match="evaluate_on"):
        check_candidates(config)


def test_only_a_choice_reads_the_validation_split():
    assert encoded_splits(cell()) == ("test",)
    assert encoded_splits(cell(candidates=2)) == ("val", "test")


def test_two_sides_with_other_candidates_are_not_compared(tmp_path):
    for model, count in (("tiny_clip", 4), ("tiny_medclip", 8)):
        record = make_record(model, finetune="zero_shot", scope="")
        record["config"]["task"]["prompts"] = {"candidates": count, "seed": 0}
        write_record(tmp_path, record)
    rows = load_rows(tmp_path)[0]
    assert not compare(rows)
    assert "task.prompts.candidates: 4 against 8" in obstacles(*sorted(rows, key=lambda row: row.model))


# ----------------------------------------------------------------------------------------------------------- a cell


def test_the_best_on_validation_is_what_the_cell_and_its_transfers_ask_with(train, command, tmp_path):
    first = ("model=tiny_clip", "finetune=zero_shot", "domain=phantom_radiograph")
    ran = train(*first, "task.prompts.candidates=6", "task.prompts.seed=0")
    assert ran.status == 0, ran.err
    told = ran.record["prompts"]
    values = [one["value"] for one in told["candidates"]]
    assert told["chosen"] == values.index(max(values))
    assert told["chosen"] > 0  # or this shows nothing
    tried = read_predictions(ran.cells[0], PROMPTS)
    assert not set(tried["example_id"]) & set(ran.predictions["example_id"])
    assert tried.groupby("candidate").size().tolist() == [told["examples"]] * 6
    # One patient alone with a finding says nothing of others': no interval then.
    several = tried.groupby("target")["group"].nunique().min() > 1
    assert all((one["low"] is not None) == several for one in told["candidates"])
    assert all(one["low"] <= one["value"] <= one["high"] for one in told["candidates"] if several)

    chosen = Wording.from_record(told["candidates"][told["chosen"]])
    said = [text.replace("{modality}", "an X-ray") for text in chosen.templates]
    direct = train(*first, f"domain.templates={json.dumps(said)}", output=tmp_path / "direct")
    scores = ["score_0", "score_1"]
    np.testing.assert_allclose(ran.predictions[scores], direct.predictions[scores], atol=1e-6)

    status, _, err = command("evaluate", f"cell={ran.cells[0]}", "domain=phantom_radiograph", "domain.patients=24")
    assert status == 0, err
    (folder,) = (ran.cells[0] / "transfer").iterdir()
    np.testing.assert_allclose(
        pd.read_parquet(folder / "predictions.parquet")[scores], ran.predictions[scores], atol=1e-6
    )


def test_a_candidate_that_a_model_has_no_room_for_is_set_aside(train):
    ran = train(
        *("model=tiny_llava", "task=vqa", "finetune=zero_shot", "domain=phantom_radiograph"),
        *(
            "task.prompts.candidates=2",
            "task.prompts.in_context=16",
            "task.prompts.examples=8",
            "task.max_new_tokens=4",
        ),
    )
    assert ran.status == 0, ran.err
    plain, long = ran.record["prompts"]["candidates"]
    assert "exceeds model.max_length" in long["reason"]
    assert long["value"] is None
    assert ran.record["prompts"]["chosen"] == 0
    assert plain["reason"] == ""


# ------------------------------------------------------------------------------------------------------- the report


def test_the_spread_over_wordings_leaves_out_what_chance_makes():
    rng = np.random.default_rng(0)

    def found(effect):
        truth = 0.7 + effect * np.linspace(-1, 1, 8)
        points = truth + 0.03 * rng.normal(size=8)
        return spread(points, points[:, None] + 0.03 * rng.normal(size=(8, 500)), confidence=0.95)

    none = [found(0)["sd"] for _ in range(200)]
    some = [found(0.1) for _ in range(200)]
    assert np.median(none) < 0.01  # the raw standard deviation is 0.03
    assert np.mean([one["sd"] for one in some]) == pytest.approx(0.0655, rel=0.05)
    assert np.mean([one["low"] <= 0.0655 <= one["high"] for one in some]) > 0.9
    assert spread(np.array([0.5]), np.zeros((1, 9)), confidence=0.95)["sd"] is None


def test_the_section_says_how_the_gap_of_a_pair_moves(tmp_path):
    aurocs = {"tiny_clip": (0.6, 0.9), "tiny_medclip": (0.8, 0.85)}
    for number, (model, (configured, best)) in enumerate(aurocs.items()):
        frame = diagnosis_frame(100, 0.8, noise=number)
        tried = [diagnosis_frame(400, a, noise=10 * number + place) for place, a in enumerate((configured, best))]
        told = {
            "metric": "auroc", "seed": 0, "examples": 400, "groups": 200, "chosen": 1,
            "candidates": [
                {**said.as_record(), "value": value, "low": 0.5, "high": 1.0, "reason": ""}
                for said, value in ((Wording(), configured), (Wording(("<b>{label}",), ("no {label}",)), best))
            ],
            "spread": {"min": configured, "max": best, "sd": 0.1, "low": 0.0, "high": 0.2, "reason": ""},
        }  # fmt: skip
        path = write_cell(tmp_path, frame, model, "phantom_oct", finetune="zero_shot", scope="", prompts=told)
        table = pd.concat([one.assign(candidate=place) for place, one in enumerate(tried)])
        write_table(path.parent / PROMPTS, table)
    rows = load_rows(tmp_path)[0]
    study = Study(tmp_path, rows)
    found = [one for row in rows if (one := prompts._tried(row))]
    (moved,), lacking = prompts.gaps(study, found)
    assert not lacking
    assert moved.configured.estimate == pytest.approx(-0.2, abs=0.06)
    assert moved.change.estimate == pytest.approx(moved.chosen.estimate - moved.configured.estimate)
    assert moved.change.low > 0.1
    made = prompts.section(study)
    assert made is not None
    body = str(made.body)
    assert "&lt;b&gt;{label}" in body
    assert "<b>{label}" not in body
    assert prompts.section(Study(tmp_path, [])) is None
