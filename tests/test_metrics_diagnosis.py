"""Diagnosis metrics against scikit-learn and torchmetrics, and where they are undefined."""

import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from vlmbench.metrics import diagnosis
from vlmbench.metrics.diagnosis import METRICS, evaluate


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def single_label(rng, n_classes, ties):
    n = int(rng.integers(4 * n_classes, 60))
    targets = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)])
    logits = rng.normal(size=(n, n_classes)) + np.eye(n_classes)[targets]
    return softmax(logits.round() if ties else logits), targets


def multi_label(rng, n_labels, ties):
    n = int(rng.integers(6, 60))
    targets = rng.integers(2, size=(n, n_labels))
    targets[0], targets[1] = 0, 1
    scores = np.clip(0.3 * targets + 0.7 * rng.random((n, n_labels)), 0, 1)
    return (scores.round(1) if ties else scores), targets


@pytest.mark.parametrize("ties", [False, True])
def test_binary_equals_scikit_learn(ties):
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, targets = single_label(rng, 2, ties)
        decided = scores.argmax(axis=1)
        expected = {
            "auroc": sk.roc_auc_score(targets, scores[:, 1]),
            "average_precision": sk.average_precision_score(targets, scores[:, 1]),
            "accuracy": sk.accuracy_score(targets, decided),
            "balanced_accuracy": sk.balanced_accuracy_score(targets, decided),
            "f1": sk.f1_score(targets, decided),
            "columns_left_out": 0,
        }
        assert evaluate(scores, targets) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_multi_class_equals_scikit_learn(ties):
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores, targets = single_label(rng, int(rng.integers(3, 7)), ties)
        decided = scores.argmax(axis=1)
        expected = {
            "auroc": sk.roc_auc_score(targets, scores, multi_class="ovr", average="macro"),
            "average_precision": sk.average_precision_score(targets, scores, average="macro"),
            "accuracy": sk.accuracy_score(targets, decided),
            "balanced_accuracy": sk.balanced_accuracy_score(targets, decided),
            "f1": sk.f1_score(targets, decided, average="macro"),
            "columns_left_out": 0,
        }
        assert evaluate(scores, targets) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_multi_label_equals_scikit_learn(ties):
    rng = np.random.default_rng(2)
    for _ in range(50):
        scores, targets = multi_label(rng, int(rng.integers(1, 6)), ties)
        thresholds = rng.random(targets.shape[1]).round(1)
        decided = (scores > thresholds).astype(int)
        columns = range(targets.shape[1])
        expected = {
            "auroc": np.mean([sk.roc_auc_score(targets[:, k], scores[:, k]) for k in columns]),
            "average_precision": np.mean([sk.average_precision_score(targets[:, k], scores[:, k]) for k in columns]),
            "accuracy": 1 - sk.hamming_loss(targets, decided),
            "balanced_accuracy": np.mean([sk.balanced_accuracy_score(targets[:, k], decided[:, k]) for k in columns]),
            "f1": np.mean([sk.f1_score(targets[:, k], decided[:, k]) for k in columns]),
            "columns_left_out": 0,
        }
        actual = evaluate(scores, targets, multi_label=True, threshold=thresholds.tolist())
        assert actual == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_equals_torchmetrics(ties):
    import torch
    from torchmetrics.functional import classification as tm

    rng = np.random.default_rng(3)
    for _ in range(25):
        scores, targets = single_label(rng, 2, ties)
        s, t = torch.tensor(scores), torch.tensor(targets)
        expected = [tm.binary_auroc(s[:, 1], t), tm.binary_average_precision(s[:, 1], t)]
        expected += [tm.binary_accuracy(s[:, 1], t), tm.binary_f1_score(s[:, 1], t)]
        actual = evaluate(scores, targets)
        names = ["auroc", "average_precision", "accuracy", "f1"]
        assert [actual[name] for name in names] == pytest.approx([float(x) for x in expected], abs=1e-6)

        n_classes = int(rng.integers(3, 7))
        scores, targets = single_label(rng, n_classes, ties)
        s, t = torch.tensor(scores), torch.tensor(targets)
        # By class indices: torchmetrics' own argmax need not take the first of equals.
        d = torch.tensor(scores.argmax(axis=1))
        expected = [tm.multiclass_auroc(s, t, n_classes), tm.multiclass_average_precision(s, t, n_classes)]
        expected += [tm.multiclass_accuracy(d, t, n_classes, average="micro")]
        expected += [tm.multiclass_accuracy(d, t, n_classes), tm.multiclass_f1_score(d, t, n_classes)]
        actual = evaluate(scores, targets)
        assert [actual[name] for name in METRICS] == pytest.approx([float(x) for x in expected], abs=1e-6)

        n_labels = int(rng.integers(2, 6))
        scores, targets = multi_label(rng, n_labels, ties)
        s, t = torch.tensor(scores), torch.tensor(targets)
        expected = [tm.multilabel_auroc(s, t, n_labels), tm.multilabel_average_precision(s, t, n_labels)]
        expected += [tm.multilabel_accuracy(s, t, n_labels), tm.multilabel_f1_score(s, t, n_labels)]
        actual = evaluate(scores, targets, multi_label=True)
        assert [actual[name] for name in names] == pytest.approx([float(x) for x in expected], abs=1e-6)


def test_what_is_undefined_is_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        healthy = evaluate([[0.9, 0.1], [0.8, 0.2]], [0, 0])
        single = evaluate([[0.2, 0.5, 0.3], [0.1, 0.8, 0.1]], [1, 1])
        labels = evaluate([[0.2], [0.8]], [[0], [0]], multi_label=True)
    undefined = ("auroc", "average_precision", "balanced_accuracy")
    assert all(math.isnan(result[name]) for result in (healthy, single, labels) for name in undefined)
    assert math.isnan(healthy["f1"])
    assert (healthy["accuracy"], single["accuracy"], labels["accuracy"]) == (1.0, 1.0, 0.5)
    assert (single["f1"], labels["f1"]) == (1.0, 0.0)


def test_columns_of_one_class_are_left_out_and_counted():
    rng = np.random.default_rng(4)
    scores, targets = multi_label(rng, 3, ties=False)
    kept = evaluate(scores[:, :2], targets[:, :2], multi_label=True)
    targets[:, 2] = 0
    scores[:, 2] = 0.1
    actual = evaluate(scores, targets, multi_label=True)
    assert actual["columns_left_out"] == 1
    for name in ("auroc", "average_precision", "balanced_accuracy", "f1"):
        assert actual[name] == pytest.approx(kept[name])
    assert actual["accuracy"] == pytest.approx((2 * kept["accuracy"] + 1) / 3)


def test_a_class_without_examples_is_left_out_of_multi_class():
    scores = softmax(np.random.default_rng(5).normal(size=(30, 4)))
    targets = np.arange(30) % 3
    actual = evaluate(scores, targets)
    assert actual["columns_left_out"] == 1
    assert actual["auroc"] == pytest.approx(np.mean([sk.roc_auc_score(targets == k, scores[:, k]) for k in range(3)]))
    assert actual["f1"] == pytest.approx(sk.f1_score(targets, scores.argmax(axis=1), average="macro", zero_division=0))


def test_threshold_decides_above_and_agrees_with_argmax_at_one_half():
    scores = np.array([[0.5, 0.5], [0.4, 0.6], [0.7, 0.3]])
    assert evaluate(scores, [0, 1, 0])["accuracy"] == 1
    assert evaluate(scores, [0, 1, 0], threshold=0.5) == evaluate(scores, [0, 1, 0])
    assert evaluate(scores, [1, 1, 1], threshold=0.2)["accuracy"] == 1
    assert evaluate(scores, [0, 0, 0], threshold=[0.6])["accuracy"] == 1


@pytest.mark.parametrize(
    ("scores", "targets", "options", "message"),
    [
        ([[np.nan, 0.5], [np.inf, 0.5]], [0, 1], {}, "2 of 4 scores are not finite, the first in row 0"),
        ([[2.0, -1.0]], [0], {}, "2 of 2 scores are outside"),
        ([[0.5]], [0], {}, "C >= 2"),
        ([0.5, 0.5], [0, 1], {}, r"got shape \(2,\)"),
        (np.zeros((0, 2)), [], {}, "N >= 1"),
        ([[0.5, 0.5]], [0, 1], {}, "to fit scores"),
        ([[0.5, 0.5]], [-1], {}, r"1 of 1 targets are none of 0\.\.1, for example -1"),
        ([[0.5, 0.5]], [2], {}, "for example 2"),
        ([[0.5, 0.5]], [0.5], {}, "for example 0.5"),
        ([[0.5, 0.5]], [1], {"multi_label": True}, "to fit scores"),
        ([[0.5, 0.5]], [[1, 2]], {"multi_label": True}, "for example 2"),
        ([[0.3, 0.3, 0.4]], [1], {"threshold": 0.5}, "3 exclusive classes"),
        ([[0.5, 0.5]], [1], {"threshold": [0.5, 0.5]}, "one finite number or 1"),
        ([[0.5, 0.5, 0.1]], [[1, 0, 0]], {"multi_label": True, "threshold": [0.1, 0.2]}, "one finite number or 3"),
        ([[0.5, 0.5]], [1], {"threshold": math.nan}, "finite"),
    ],
)
def test_faults_are_named(scores, targets, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(scores, targets, **options)


def test_nan_mean():
    assert diagnosis.nan_mean([1.0, math.nan, 3.0]) == 2
    assert math.isnan(diagnosis.nan_mean([]))
