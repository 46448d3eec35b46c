"""Calibration and operating points against scikit-learn and torchmetrics; whether intervals hold the truth."""

import numpy as np
import pytest

from vlmbench.metrics import calibration, operating
from vlmbench.metrics.diagnosis import one_vs_rest


def binary(n, seed, shift=0.0, per_patient=2):
    """Scores, targets and groups; the scores are calibrated without a shift of their logits."""
    rng = np.random.default_rng(seed)
    logits = np.repeat(rng.normal(size=n // per_patient), per_patient) + rng.normal(size=n)
    score = 1 / (1 + np.exp(-logits))
    target = rng.random(n) < 1 / (1 + np.exp(shift - logits))
    return np.stack([1 - score, score], axis=1), target.astype(int), np.arange(n) // per_patient


def several(n, seed, classes=3):
    rng = np.random.default_rng(seed)
    target = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[target]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), target, np.arange(n)


def errors(scores, targets, groups, **settings):
    return calibration.errors(one_vs_rest(scores, targets), scores, groups, **{"n_resamples": 50, **settings})


def test_calibration_errors_equal_torchmetrics():
    import torch
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    scores, targets, groups = binary(400, 0, shift=1)
    theirs = binary_calibration_error(torch.tensor(scores[:, 1]), torch.tensor(targets), n_bins=15)
    assert errors(scores, targets, groups)["ece"]["value"] == pytest.approx(float(theirs), abs=1e-6)
    scores, targets, groups = several(400, 1)
    theirs = multiclass_calibration_error(torch.tensor(scores), torch.tensor(targets), num_classes=3, n_bins=15)
    assert errors(scores, targets, groups)["ece"]["value"] == pytest.approx(float(theirs), abs=1e-6)


def test_reliability_equals_scikit_learn():
    from sklearn.calibration import calibration_curve

    scores, targets, groups = binary(500, 2, shift=1)
    curve = calibration.reliability(scores[:, 1:], targets[:, None].astype(float), groups, n_resamples=200)
    observed, predicted = calibration_curve(targets, scores[:, 1], n_bins=10)
    np.testing.assert_allclose(curve["observed"], observed)
    np.testing.assert_allclose(curve["predicted"], predicted)
    assert curve["count"].sum() == 500
    # Of independent patients the interval is near the binomial one.
    scores, targets, groups = binary(500, 2, per_patient=1)
    curve = calibration.reliability(scores[:, 1:], targets[:, None].astype(float), groups, n_resamples=500)
    error = np.sqrt(curve["observed"] * (1 - curve["observed"]) / curve["count"])
    np.testing.assert_allclose(curve["high"] - curve["low"], 2 * 1.96 * error, rtol=0.25)


def test_a_bin_that_resamples_cannot_vary_still_has_width_unless_of_one_patient():
    curve = calibration.reliability(np.array([[0.05], [0.05], [0.95], [0.95]]), np.ones((4, 1)), [0, 1, 2, 2])
    assert np.isnan(curve["low"]).tolist() == [False, True]
    assert curve["low"][0] == pytest.approx(2 / (2 + 1.96**2), abs=1e-4)  # Wilson 1927 of 2 of 2
    assert curve["high"][0] == 1


def test_bins_with_equally_many_examples_keep_equal_scores_together():
    bins = calibration.equal_mass(np.array([0.1, 0.1, 0.1, 0.1, 0.5, 0.7, 0.8, 0.9]), n_bins=4)
    assert [sorted(group) for group in np.split(bins, [4])] == [[0] * 4, sorted(bins[4:])]
    _, counts = np.unique(calibration.equal_mass(np.random.default_rng(0).random(600), n_bins=15), return_counts=True)
    assert counts.tolist() == [40] * 15


def test_classwise_and_brier_by_hand():
    scores = np.array([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    targets = np.array([0, 1, 1, 2])
    found = errors(scores, targets, np.arange(4))
    # Said 0.8 four times, right three times. Class 0: said 0.8 twice, once true; said 0.1 twice, never true.
    assert found["ece"]["value"] == pytest.approx(0.05)
    of_classes = [(0.3 + 0.1) / 2, (0.2 * 1 + (1 / 3 - 0.1) * 3) / 4, (0.2 * 1 + 0.1 * 3) / 4]
    assert found["ece_classwise"]["value"] == pytest.approx(np.mean(of_classes))
    assert calibration.brier(one_vs_rest(scores, targets)) == pytest.approx([0.06, 1.46, 0.06, 0.06])


def test_calibrated_scores_are_seldom_said_to_be_off_and_others_are():
    calibrated, off = ([errors(*binary(120, s, shift), n_resamples=200)["ece"] for s in range(60)] for shift in (0, 2))
    assert np.mean([ece["low"] == 0 for ece in calibrated]) >= 0.9
    assert np.mean([ece["value"] for ece in calibrated]) > 0.08  # which looks bad, and is chance
    assert np.mean([ece["low"] > 0 for ece in off]) >= 0.95


def test_the_interval_of_a_calibration_error_holds_the_truth():
    shift = 0.8
    scores, targets, _ = binary(400_000, 99, shift)
    task = one_vs_rest(scores, targets)
    bins = calibration.equal_width(scores[:, 1])
    truth = task.truth[:, 0].astype(float)
    true = np.abs(calibration.calibration_gaps(scores[:, 1], truth, bins, np.ones((1, len(bins))))).sum()
    found = [errors(*binary(300, s, shift), n_resamples=200)["ece"] for s in range(100)]
    assert np.mean([ece["low"] <= true <= ece["high"] for ece in found]) >= 0.9


def test_one_patient_gives_no_interval():
    scores, targets, _ = binary(20, 0)
    found = errors(scores, targets, np.zeros(20))["ece"]
    assert found["value"] > 0
    assert np.isnan([found["low"], found["high"], found["chance"]]).all()


@pytest.mark.parametrize("digits", [1, 8])  # with one, many scores are equal
def test_operating_points_equal_scikit_learn(digits):
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(digits)
    scores, targets, _ = binary(150, digits, shift=0.5)
    scores = scores.round(digits)
    task = one_vs_rest(scores, targets)
    weights = rng.integers(0, 3, size=(20, 150)).astype(float)
    found = operating.operating_points(task)(weights)
    for r, weight in enumerate(weights):
        false_rate, true_rate, _ = roc_curve(targets, scores[:, 1], sample_weight=weight, drop_intermediate=False)
        for level in (0.9, 0.95):
            sensitivity = true_rate[false_rate <= 1 - level + 1e-9].max()
            specificity = 1 - false_rate[true_rate >= level - 1e-9].min()
            assert found[f"sensitivity_at_{100 * level:g}_specificity"][r] == pytest.approx(sensitivity)
            assert found[f"specificity_at_{100 * level:g}_sensitivity"][r] == pytest.approx(specificity)


def test_each_class_by_itself_equals_scikit_learn():
    from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

    scores, targets, _ = several(120, 3)
    found = operating.of_each(one_vs_rest(scores, targets))(np.ones((1, 120)))
    recalls = recall_score(targets, scores.argmax(axis=1), average=None)
    for k in range(3):
        assert found[f"auroc_{k}"][0] == pytest.approx(roc_auc_score(targets == k, scores[:, k]))
        assert found[f"average_precision_{k}"][0] == pytest.approx(average_precision_score(targets == k, scores[:, k]))
        assert found[f"sensitivity_{k}"][0] == pytest.approx(recalls[k])
    assert found["specificity_0"][0] == pytest.approx(recall_score(targets != 0, scores.argmax(axis=1) != 0))


def test_a_class_that_a_resample_lacks_is_undefined():
    scores, targets, _ = binary(40, 0)
    only_negative = (targets == 0).astype(float)[None]
    assert np.isnan(operating.operating_points(one_vs_rest(scores, targets))(only_negative).popitem()[1])
