"""From a predictions table to metrics with intervals, and what the package may import."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vlmbench.metrics import diagnosis, vqa
from vlmbench.metrics.frame import score_frame, to_jsonable


def diagnosis_frame(n_classes=2, multi_label=False, n=120, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(n_classes), size=n)
    columns: dict[str, Any] = {"example_id": [f"e{i}" for i in range(n)], "group": [f"p{i // 3}" for i in range(n)]}
    columns |= {f"score_{k}": scores[:, k] for k in range(n_classes)}
    if multi_label:
        columns |= {f"target_{k}": rng.integers(2, size=n) for k in range(n_classes)}
    columns["target"] = np.full(n, -1) if multi_label else rng.integers(n_classes, size=n)
    return pd.DataFrame(columns)


def vqa_frame():
    rows = [
        ("e0", "p0", "Is it?", "yes", "closed", ["yes", "no"], "Yes.", [-0.1, -2.0]),
        ("e1", "p0", "Is it?", "no", "closed", ["yes", "no"], "perhaps", [-0.1, -2.0]),
        ("e2", "p1", "Where?", "left lung", "open", [], "the left lung", []),
        ("e3", "p1", "Where?", "left lung", "open", [], "", []),
        ("e4", "p2", "Is it?", "no", "closed", ["yes", "no"], "There is no effusion", [-3.0, -2.0]),
        ("e5", "p3", "Where?", "heart", "open", [], "liver", []),
    ]
    names = ["example_id", "group", "question", "answer", "answer_type", "options", "prediction", "option_scores"]
    return pd.DataFrame(rows, columns=names)


@pytest.mark.parametrize(("n_classes", "multi_label"), [(2, False), (12, False), (3, True)])
def test_diagnosis_values_and_intervals(n_classes, multi_label):
    frame = diagnosis_frame(n_classes, multi_label)
    result = score_frame(frame, "diagnosis", multi_label=multi_label, n_resamples=100)
    scores = frame[[f"score_{k}" for k in range(n_classes)]].to_numpy()
    targets = frame[[f"target_{k}" for k in range(n_classes)]].to_numpy() if multi_label else frame["target"].to_numpy()
    expected = diagnosis.evaluate(scores, targets, multi_label=multi_label)
    assert set(result["metrics"]) == set(diagnosis.METRICS)
    for name, metric in result["metrics"].items():
        assert metric["value"] == expected[name]
        assert 0 <= metric["low"] < metric["value"] < metric["high"] <= 1
        assert metric["n_resamples"] == 100
    assert result["bootstrap"]["n_groups"] == 40
    assert result["counts"] == {"examples": 120, "columns_left_out": 0}
    assert score_frame(frame.iloc[::-1], "diagnosis", multi_label=multi_label, n_resamples=100)["metrics"][
        "auroc"
    ] == pytest.approx(result["metrics"]["auroc"])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_class_in_one_patient_has_no_interval(n_classes):
    frame = diagnosis_frame(n_classes, n=12 * n_classes)
    # One patient a class: every resample in which a ranking is defined gives the same one.
    frame["target"] = np.arange(len(frame)) % n_classes
    frame["group"] = frame["target"].astype(str).astype(object)
    metrics = score_frame(frame, "diagnosis", n_resamples=50)["metrics"]
    for name in ("auroc", "average_precision", "balanced_accuracy"):
        assert metrics[name]["value"] is not None
        assert metrics[name]["low"] is metrics[name]["high"] is None
        assert "one group" in metrics[name]["reason"]
    assert metrics["accuracy"]["low"] is not None
    frame.loc[0, "group"], frame.loc[1, "group"] = "another", "one more"
    assert score_frame(frame, "diagnosis", n_resamples=50)["metrics"]["auroc"]["low"] is not None


def test_threshold_reaches_the_decision():
    frame = diagnosis_frame()
    low = score_frame(frame, "diagnosis", threshold=0.0, n_resamples=10)["metrics"]
    assert low["accuracy"]["value"] == pytest.approx(frame["target"].mean())


def test_vqa_values_and_counts():
    frame = vqa_frame()
    result = score_frame(frame, "vqa", n_resamples=200)
    metrics = result["metrics"]
    assert metrics["closed_accuracy"]["value"] == pytest.approx(2 / 3)
    assert metrics["closed_unparsed"]["value"] == pytest.approx(1 / 3)
    assert metrics["closed_majority"]["value"] == pytest.approx(2 / 3)
    assert metrics["closed_accuracy_likelihood"]["value"] == pytest.approx(2 / 3)
    assert metrics["open_exact_match"]["value"] == pytest.approx(1 / 3)
    assert metrics["accuracy"]["value"] == pytest.approx(1 / 2)
    assert result["counts"] == {"examples": 6, "open": 3, "closed": 3}
    without = score_frame(frame.drop(columns="option_scores"), "vqa", n_resamples=0)["metrics"]
    assert set(metrics) - set(without) == {"closed_accuracy_likelihood"}
    assert set(without) == {*vqa.OPEN_METRICS, *vqa.CLOSED_METRICS, "accuracy"}


def test_a_parquet_file_reads_back_to_the_same_metrics(tmp_path):
    frame = vqa_frame()
    frame.to_parquet(tmp_path / "predictions.parquet")
    assert score_frame(pd.read_parquet(tmp_path / "predictions.parquet"), "vqa", n_resamples=50) == score_frame(
        frame, "vqa", n_resamples=50
    )


def test_the_result_is_strict_json_with_none_for_undefined():
    frame = diagnosis_frame()
    frame["target"] = 0
    result = score_frame(frame, "diagnosis", n_resamples=10)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    auroc = result["metrics"]["auroc"]
    assert auroc["value"] is auroc["low"] is auroc["high"] is None
    assert "undefined" in auroc["reason"]
    assert result["metrics"]["accuracy"]["low"] is not None
    assert result["counts"]["columns_left_out"] == 1


def test_to_jsonable():
    assert to_jsonable({"a": (np.float64("nan"), np.int64(2)), "b": [1.5, "x"]}) == {"a": [None, 2], "b": [1.5, "x"]}


def without(frame, *names):
    return frame.drop(columns=list(names))


def changed(frame, name, value):
    frame[name] = frame[name].astype(object)
    frame.loc[0, name] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "task", "options", "message"),
    [
        (diagnosis_frame(), "captioning", {}, "got 'captioning'"),
        (diagnosis_frame().iloc[:0], "diagnosis", {}, "empty"),
        (without(diagnosis_frame(), "group"), "diagnosis", {}, r"lack the columns \['group'\]; present are .*score_1"),
        (without(diagnosis_frame(), "target"), "diagnosis", {}, r"\['target'\]"),
        (without(diagnosis_frame(3), "score_1"), "diagnosis", {}, r"\['score_1'\]"),
        (without(diagnosis_frame(), "score_0", "score_1"), "diagnosis", {}, r"\['score_0'\]"),
        (diagnosis_frame(), "diagnosis", {"multi_label": True}, r"\['target_0', 'target_1'\]"),
        (diagnosis_frame(2, True), "diagnosis", {}, "120 of 120 targets are none of"),
        (changed(diagnosis_frame(), "score_0", np.nan), "diagnosis", {}, "1 of 240 scores are not finite"),
        (changed(diagnosis_frame(), "group", None), "diagnosis", {}, "1 of 120 rows have no 'group'"),
        (changed(diagnosis_frame(), "example_id", "e1"), "diagnosis", {}, "repeat an example_id, the first is 'e1'"),
        (without(vqa_frame(), "prediction", "answer"), "vqa", {}, r"\['answer', 'prediction'\]"),
        (changed(vqa_frame(), "prediction", None), "vqa", {}, "1 of 6 rows have no 'prediction'"),
        (changed(vqa_frame(), "answer", "left"), "vqa", {}, "row 0: the answer 'left'"),
    ],
)
def test_faults_are_named(frame, task, options, message):
    with pytest.raises(ValueError, match=message):
        score_frame(frame, task, **options)


def test_the_package_imports_nothing_of_the_project_but_itself_and_no_torch():
    code = (
        "import sys; from vlmbench.metrics import answers, bootstrap, diagnosis, frame, vqa, weighted; "
        "print(*[m for m in sys.modules if m.split('.')[0] in {'torch', 'torchmetrics'} "
        "or m.startswith('vlmbench.') and not m.startswith('vlmbench.metrics')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
