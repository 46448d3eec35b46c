"""Rows from records: what is read, what is refused, and which of several records of a cell counts."""

import json
import math

import numpy as np
import pytest
from synthetic_records import demo_records, make_record, write_record
from synthetic_study import diagnosis_frame, write_cell

from vlmbench.records.store import write_predictions
from vlmbench.reporting.html import render
from vlmbench.reporting.load import ReportError, load_rows, row_from_record
from vlmbench.reporting.ordering import newest, variants
from vlmbench.reporting.rows import as_number
from vlmbench.reporting.study import Settings, Study


def rows_of(*records):
    return [row_from_record(record, f"{n}/record.json") for n, record in enumerate(records)]


def test_a_record_becomes_a_row(tmp_path):
    write_record(tmp_path, make_record(value=0.9123, seed=3), "a/b/c")
    (row,), unreadable = load_rows(tmp_path)
    assert not unreadable
    assert (row.path, row.model, row.finetune, row.scope, row.seed) == (
        "a/b/c/record.json",
        "tiny_clip",
        "lora",
        "vision",
        3,
    )
    assert row.primary.value == 0.9123
    assert row.primary.interval is not None
    assert row.number("cost", "seconds", "predict") == 2.0
    assert row.number("cost", "peak_memory_bytes", "device") is None


def test_no_directory_and_no_record_are_told_apart(tmp_path):
    with pytest.raises(ReportError, match="no directory"):
        load_rows(tmp_path / "absent")
    with pytest.raises(ReportError, match=r"no record\.json under .*; run a cell or a grid first"):
        load_rows(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "Expecting property name"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[" * 100_000, "recursion"),
        (b"[]", "holds a JSON list"),
        (b'{"schema": 2}', "schema is 2"),
        (b'{"schema": 1, "status": "running"}', "status is 'running'"),
        (b'{"schema": 1, "status": "done", "kind": "other"}', "kind is 'other'"),
        (b'{"schema": 1, "status": "done", "cell": {"model": "m", "task": "vqa"}}', "lacks finetune, domain"),
    ],
)
def test_an_unreadable_record_is_listed_with_its_path_and_reason(tmp_path, content, reason):
    write_record(tmp_path, make_record(), "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "record.json").write_bytes(content)
    rows, (unreadable,) = load_rows(tmp_path)
    assert len(rows) == 1
    assert unreadable.path == "bad/record.json"
    assert reason in unreadable.reason


def test_a_directory_named_record_json_is_unreadable(tmp_path):
    (tmp_path / "x" / "record.json").mkdir(parents=True)
    _, (unreadable,) = load_rows(tmp_path)
    assert "cannot be opened" in unreadable.reason


def test_null_values_carry_a_reason_and_are_never_zero():
    record = make_record()
    record["metrics"] = {"auroc": {"value": None, "low": None, "high": None}, "f1": {"value": math.nan}, "x": "high"}
    (row,) = rows_of(record)
    assert [e.value for e in row.estimates.values()] == [None, None, None]
    assert all(e.reason for e in row.estimates.values())


def test_a_missing_primary_metric_has_a_reason():
    (row,) = rows_of(make_record(primary_metric="auprc"))
    assert row.primary.value is None
    assert "does not hold" in row.primary.reason


@pytest.mark.parametrize("junk", [None, True, "1", [], {}, math.nan, math.inf, 10**400, 1e300])
def test_what_is_no_number_is_none(junk):
    assert as_number(junk) is None


def test_a_bare_failed_record_borrows_what_others_say_of_its_model_and_domain(tmp_path):
    write_record(tmp_path, make_record("tiny_medclip", "phantom_fundus", finetune="zero_shot"))
    cell = {"model": "tiny_medclip", "task": "diagnosis", "finetune": "lora", "domain": "phantom_fundus", "seed": 0}
    write_record(tmp_path, {"schema": 1, "status": "failed", "cell": cell}, "bare")
    write_record(tmp_path, {"schema": 1, "status": "failed"}, "empty")
    rows, unreadable = load_rows(tmp_path)
    bare = next(row for row in rows if row.path == "bare/record.json")
    assert not unreadable
    assert (bare.role, bare.modality, bare.exposure, bare.primary_metric) == ("specialist", "fundus", "id", "auroc")
    assert bare.error_line == "error not recorded"


def test_the_newest_record_of_a_cell_counts_and_the_older_is_kept_apart():
    old = make_record(value=0.7, finished="2025-01-01T00:00:00+00:00")
    new = make_record(value=0.8, finished="2025-01-02T00:00:00+00:00")
    current, older = newest(rows_of(new, old))
    assert [row.primary.value for row in current] == [0.8]
    assert [row.primary.value for row in older] == [0.7]


def test_two_recipes_of_one_cell_are_variants_and_neither_replaces_the_other():
    slow = make_record()
    slow["config"]["trainer"]["max_epochs"] = 20
    rows = rows_of(make_record(), slow)
    assert variants(rows) == ["trainer.max_epochs=10", "trainer.max_epochs=20"]
    assert len(newest(rows)[0]) == 2


def test_two_versions_of_the_data_are_variants_wherever_they_lie():
    moved, other = make_record(seed=1), make_record(seed=2)
    moved["config"]["domain"]["root"] = "/moved"
    other["data"]["fingerprint"] = "0123456789abcdef"
    assert variants(rows_of(make_record(), moved)) == ["", ""]
    assert variants(rows_of(make_record(), make_record(seed=3, failed="boom"))) == ["", ""]
    assert variants(rows_of(make_record(), other))[1] == "data=0123456789ab"


def test_a_recipe_that_changes_from_domain_to_domain_does_not_split_a_line():
    other = make_record(domain="phantom_fundus")
    other["config"]["trainer"]["max_epochs"] = 20
    assert variants(rows_of(make_record(), other)) == ["", ""]


def test_synthetic_records_are_plain_json():
    assert json.loads(json.dumps(demo_records())) == demo_records()


def test_trials_of_a_search_are_neither_results_nor_unreadable(tmp_path):
    write_record(tmp_path, make_record() | {"kind": "trial"}, ".search/trials/a")
    with pytest.raises(ReportError, match="trials of a search alone"):
        load_rows(tmp_path)
    write_record(tmp_path, make_record(), "a")
    (row,), unreadable = load_rows(tmp_path)
    assert row.kind == "cell"
    assert unreadable == []


@pytest.mark.parametrize(
    "spoil", [lambda f: f.drop(columns="group"), lambda f: f.assign(score_1=np.nan), lambda f: f.assign(target=1)]
)
def test_predictions_that_do_not_fit_or_have_one_class_do_not_take_the_page_with_them(tmp_path, spoil):
    for number, model in enumerate(("tiny_clip", "tiny_medclip")):
        frame = diagnosis_frame(40, 0.8, noise=number)
        write_predictions(write_cell(tmp_path, frame, model, "phantom_oct").parent, spoil(frame))
    study = Study(tmp_path, load_rows(tmp_path)[0], settings=Settings(resamples=50))
    assert "tiny_medclip" in render(study)
