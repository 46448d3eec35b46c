"""Published numbers beside ours: planted at them, the differences are zero; what is no reference value is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_records import make_record, write_record
from synthetic_study import vqa_frame, write_cell

from vlmbench.catalogue.read import group_files, model_files
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.published import ReferenceFileError, read_references
from vlmbench.reporting.reference import beside, section
from vlmbench.reporting.study import Settings, Study

HEADER = "source,task,model,role,finetune,domain,metric,value,ci_low,ci_high,exposure"
PUBLISHED = read_references("published")


def planted(auroc: float) -> pd.DataFrame:
    """Predictions whose AUROC is a number of thousandths exactly: 20 positives against 50 negatives."""
    right = round(1000 * auroc)  # of 1000 pairs, those in the right order
    whole, rest = divmod(right, 50)
    positive = [60.0] * whole + ([rest - 0.5] if rest else []) + [-1.0] * (20 - whole - bool(rest))
    score = np.array(positive + [float(i) for i in range(50)])
    score = (score + 2) / 70
    names = [f"e{i}" for i in range(70)]
    target = np.repeat([1, 0], [20, 50])
    return pd.DataFrame({"example_id": names, "group": names, "target": target, "score_0": 1 - score, "score_1": score})


def study_of(root: Path) -> Study:
    return Study(root, load_rows(root)[0], settings=Settings(against="published"))


def test_planted_at_the_published_aurocs_all_144_differences_are_zero(tmp_path):
    wanted = [r for r in PUBLISHED if r.names["source"] == "authors_2026_csv" and r.names["task"] == "diagnosis"]
    assert len(wanted) == 144
    for item in wanted:
        frame = planted(item.value / 100)
        scope = "vision" if item.finetune == "lora" else ""
        write_cell(tmp_path, frame, item.model, item.domain, finetune=item.finetune, scope=scope, resamples=2)
    study = study_of(tmp_path)
    found = beside(study, wanted)
    assert [item.difference for item in found.compared] == [0.0] * 144
    assert all("outside theirs" not in item.inside for item in found.compared)
    made = section(study)
    assert made is not None
    # 144 of the result files, and what v1 has of the same cells with other numbers.
    assert made.body.count("data-cells=") == 144 + 90
    assert "is a second linear probe" in made.body


def test_a_planted_difference_shows_with_its_sign(tmp_path):
    (item,) = [r for r in PUBLISHED if (r.names["source"], r.line) == ("authors_2026_csv", PUBLISHED[0].line)]
    write_cell(tmp_path, planted(item.value / 100 - 0.05), item.model, item.domain + ".study", finetune=item.finetune)
    (found,) = beside(study_of(tmp_path), [item]).compared
    assert found.difference == -5.0
    assert "another number of test examples" in found.notes


def test_rows_that_are_no_reference_values_are_refused_and_never_compared(tmp_path):
    refused = {(r.names["model"], r.domain) for r in PUBLISHED if r.refused}
    domains = ("slake", "pathvqa", "vqa_rad", "fairvlmed_vqa")
    assert refused == {
        ("MedGemma", "fairvlmed_vqa"),
        ("o3", "pathvqa"),
        ("o3", "vqa_rad"),
        *((name, domain) for name in ("Gemini", "gemini-2.5-pro") for domain in domains),
    }
    for model, domain in (("gemini", "slake"), ("o3", "pathvqa"), ("o3", "slake")):
        write_record(tmp_path, make_record(model, domain, task="vqa", finetune="zero_shot", scope=""))
    found = beside(study_of(tmp_path), PUBLISHED)
    assert {(item.row.model, item.row.domain) for item in found.compared} == {("o3", "slake")}
    assert len(found.refused) == sum(bool(r.refused) for r in PUBLISHED)


def test_every_published_name_is_one_of_ours():
    assert len(PUBLISHED) == 467
    models, unknown = set(model_files()), {"medxpertqa"}
    for item in PUBLISHED:
        assert item.model in models, item.names
        assert item.finetune in group_files("finetune"), item.names
        assert item.domain in unknown or item.domain in group_files("domain")
    methods = {(r.names["model"], r.finetune, r.scope) for r in PUBLISHED if r.names["finetune"] == "finetuned"}
    assert ("LLaVA-Med", "connector", "M") in methods
    assert ("LLaVA-1.5", "lora", "ML") in methods


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("x,diagnosis,clip,,lora,papila,auroc,0.81,0.7,0.9,", "looks like a share"),
        ("x,vqa,llava,,lora,slake,f1,0.5,,,", "looks like a share"),
        ("x,diagnosis,clip,,lora,papila,auroc,810,,,", "is no percentage"),
        ("x,diagnosis,clip,,lora,papila,auroc,n/a,,,", "is no number"),
        ("x,diagnosis,clip,,lora,papila,auroc,81,90,70,", "no interval"),
        ("x,detection,clip,,lora,papila,auroc,81,,,", "task 'detection'"),
        ("x,diagnosis,,,lora,papila,auroc,81,,,", "model is empty"),
        ("x,diagnosis,clip,lora,papila,auroc,81", "7 fields"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, row, said):
    path = tmp_path / "theirs.csv"
    path.write_text(f"# ours\n{HEADER}\n{row}\n")
    with pytest.raises(ReferenceFileError, match=said) as caught:
        read_references(str(path))
    assert f"{path}, line 3" in str(caught.value)


def test_unknown_columns_and_missing_files_are_told_before_records_are_read(tmp_path, command):
    path = tmp_path / "theirs.csv"
    path.write_text(f"{HEADER},note\nx,diagnosis,clip,,lora,papila,auroc,81,,,,hm\n")
    for against, said in ((path, "unknown column note"), ("publishd", "Write against=published")):
        status, _, err = command("report", f"records={tmp_path / 'nowhere'}", f"against={against}")
        assert status == 2
        assert said in err


def test_an_own_file_with_our_names_is_compared(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text(f"{HEADER}\nearlier,diagnosis,tiny_clip,,lora,phantom_oct,auroc,81.0,70,90,\n")
    write_record(tmp_path, make_record(domain="phantom_oct", value=0.8349))
    (found,) = beside(study_of(tmp_path), read_references(str(path))).compared
    assert found.difference == 2.5
    assert found.inside.startswith("ours in theirs")


def test_answers_are_scored_by_the_published_convention(tmp_path):
    (item,) = [
        r
        for r in PUBLISHED
        if (r.model, r.domain, r.finetune, r.names["metric"])
        == ("llava", "slake", "zero_shot", "closed_accuracy_substring")
    ]
    frame = vqa_frame(120, 0.64, noise=1)
    closed = frame["answer_type"] == "closed"
    frame.loc[closed, "prediction"] = [f"it is {word}, not normal" for word in frame.loc[closed, "prediction"]]
    write_cell(tmp_path, frame, item.model, item.domain, task="vqa", finetune="zero_shot", scope="", resamples=2)
    (found,) = beside(study_of(tmp_path), [item]).compared
    # "no" is in "not" and in "normal": every "no" counts as right, by the published convention.
    no = frame["answer"] == "no"
    right = no | np.array([answer in text for answer, text in zip(frame["answer"], frame["prediction"], strict=True)])
    assert found.estimate.value == pytest.approx(right[closed].mean())
    assert found.difference == round(round(100 * right[closed].mean(), 1) - 64.0, 1)
    assert found.estimate.interval is not None
    assert (item.value, item.examples, found.examples) == (64.0, 416, closed.sum())
