"""The cluster bootstrap, and the weighted metrics that make it fast."""

import math

import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics as sk

from vlmbench.metrics import bootstrap, diagnosis, weighted
from vlmbench.metrics.bootstrap import intervals


def test_weighted_ranking_equals_scikit_learn():
    rng = np.random.default_rng(0)
    for case in range(150):
        n = int(rng.integers(4, 60))
        positive = rng.random(n) < 0.4
        positive[:2] = [True, False]
        scores = rng.random(n).round(1 if case % 2 else 12)
        weights = rng.integers(0, 4, size=(3, n)).astype(float) if case % 3 else rng.random((3, n))
        weights[:, :2] += 0.5
        auroc, average_precision = weighted.ranking(scores, positive, weights)
        for r in range(3):
            kept = weights[r] > 0
            arguments = (positive[kept], scores[kept])
            assert auroc[r] == pytest.approx(sk.roc_auc_score(*arguments, sample_weight=weights[r, kept]))
            expected = sk.average_precision_score(*arguments, sample_weight=weights[r, kept])
            assert average_precision[r] == pytest.approx(expected)


def test_weighted_ranking_is_nan_without_a_class():
    auroc, average_precision = weighted.ranking(
        np.array([0.1, 0.9]), np.array([False, True]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    )
    assert np.isnan(auroc).tolist() == np.isnan(average_precision).tolist() == [True, True, False]


@pytest.mark.parametrize(("n_columns", "multi_label"), [(2, False), (4, False), (3, True), (1, True)])
def test_a_weight_is_a_number_of_copies(n_columns, multi_label):
    rng = np.random.default_rng(1)
    for _ in range(12):
        n = int(rng.integers(5, 30))
        scores = rng.random((n, n_columns)).round(1)
        targets = rng.integers(2, size=(n, n_columns)) if multi_label else rng.integers(n_columns, size=n)
        task = diagnosis.one_vs_rest(scores, targets, multi_label=multi_label)
        weights = np.vstack([np.ones(n, dtype=int), rng.integers(0, 3, size=(3, n))])
        weights[:, 0] += 1
        actual = weighted.statistics(task)(weights.astype(float))
        for r, copies in enumerate(weights):
            expected = diagnosis.evaluate(scores.repeat(copies, 0), targets.repeat(copies, 0), multi_label=multi_label)
            for name in diagnosis.METRICS:
                assert actual[name][r] == pytest.approx(expected[name], nan_ok=True), (name, r)


def test_resampling_draws_whole_groups_whatever_the_chunk(monkeypatch):
    codes = np.array([0, 0, 1, 2, 2, 2])
    whole = np.concatenate(list(bootstrap.resample(codes, 200, seed=3)))
    assert whole.shape == (200, 6)
    assert (whole[:, 0] == whole[:, 1]).all()
    assert (whole[:, 3:] == whole[:, 3:4]).all()
    assert (whole[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert whole.mean() == pytest.approx(1, abs=0.1)
    monkeypatch.setattr(bootstrap, "_CHUNK", 40)
    parts = list(bootstrap.resample(codes, 200, seed=3))
    assert len(parts) > 1
    assert (np.concatenate(parts) == whole).all()


def test_means_equal_a_plain_loop():
    rng = np.random.default_rng(2)
    groups = rng.integers(12, size=80)
    values = np.where(rng.random(80) < 0.3, np.nan, rng.normal(size=80))
    result = intervals({"m": values}, groups, n_resamples=50, confidence=0.8, seed=5)["metrics"]["m"]
    codes = np.unique(groups.astype(str), return_inverse=True)[1]
    loop = [np.nanmean(values.repeat(w.astype(int))) for w in np.concatenate(list(bootstrap.resample(codes, 50, 5)))]
    # Twelve groups: their spread times 12 / 11, and Student's t of 11 degrees of freedom.
    expected = stats.t.interval(0.8, 11, np.nanmean(values), np.std(loop, ddof=1) * np.sqrt(12 / 11))
    assert result["value"] == pytest.approx(np.nanmean(values))
    assert [result["low"], result["high"]] == pytest.approx(expected)
    assert (result["n_resamples"], result["undefined"]) == (50, 0)
    assert "reason" not in result


def test_same_seed_same_interval_in_any_order():
    rng = np.random.default_rng(3)
    values, groups = rng.normal(size=50), rng.integers(9, size=50)
    order = rng.permutation(50)
    first = intervals({"m": values}, groups, seed=1)["metrics"]["m"]
    assert intervals({"m": values[order]}, groups[order], seed=1)["metrics"]["m"] == pytest.approx(first)
    assert intervals({"m": values}, groups, seed=2)["metrics"]["m"]["low"] != first["low"]


def test_interval_covers_the_mean_of_grouped_normal_data():
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(50), 4)
    covered = []
    for seed in range(200):
        values = rng.normal(size=50)[groups] + rng.normal(size=200)
        result = intervals({"m": values}, groups, n_resamples=300, seed=seed)["metrics"]["m"]
        covered.append(result["low"] <= 0 <= result["high"])
    # Three standard errors of 200 trials.
    assert 0.90 <= np.mean(covered) <= 0.99


def test_without_ties_to_resampling_the_interval_is_the_t_interval_of_scipy():
    values = np.random.default_rng(8).normal(size=30)
    result = intervals({"m": values}, np.arange(30), n_resamples=20_000)["metrics"]["m"]
    expected = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    assert [result["low"], result["high"]] == pytest.approx(expected, abs=0.02)


def test_a_share_has_its_interval_on_the_logit_scale_and_certainty_has_width():
    right = np.r_[np.ones(18), np.zeros(2)]
    metrics = intervals({"m": right, "all": np.ones(20), "none": np.zeros(20)}, np.arange(20), n_resamples=20_000)[
        "metrics"
    ]
    error = stats.sem(right) / (0.9 * 0.1)
    expected = special.expit(stats.t.interval(0.95, 19, special.logit(0.9), error))
    assert [metrics["m"]["low"], metrics["m"]["high"]] == pytest.approx(expected, abs=0.01)
    exact = stats.binomtest(20, 20).proportion_ci(method="exact")
    assert [metrics["all"]["low"], metrics["all"]["high"]] == pytest.approx([exact.low, exact.high])
    assert [metrics["none"]["low"], metrics["none"]["high"]] == pytest.approx([1 - exact.high, 1 - exact.low])


def test_copies_within_a_group_widen_the_interval():
    rng = np.random.default_rng(5)
    patients = rng.normal(size=40)
    values, groups = patients.repeat(9), np.arange(40).repeat(9)
    by_group = intervals({"m": values}, groups)["metrics"]["m"]
    by_item = intervals({"m": values}, np.arange(360))["metrics"]["m"]
    once = intervals({"m": patients}, np.arange(40))["metrics"]["m"]
    width = by_group["high"] - by_group["low"]
    assert width > 2.5 * (by_item["high"] - by_item["low"])
    assert width == pytest.approx(once["high"] - once["low"], rel=0.15)


def test_one_group_has_no_interval():
    result = intervals({"m": np.array([1.0, 0.0, 1.0])}, ["p", "p", "p"], n_resamples=20)
    metric = result["metrics"]["m"]
    assert metric["value"] == pytest.approx(2 / 3)
    assert math.isnan(metric["low"])
    assert math.isnan(metric["high"])
    assert "one group" in metric["reason"]
    assert result["bootstrap"]["n_groups"] == 1


def test_a_metric_that_lives_in_one_group_has_no_interval():
    values = {"open": np.array([1.0, 0.0, np.nan]), "all": np.array([1.0, 0.0, 1.0]), "none": np.full(3, np.nan)}
    metrics = intervals(values, ["p", "p", "q"], n_resamples=100)["metrics"]
    assert math.isnan(metrics["open"]["low"])
    assert "one group" in metrics["open"]["reason"]
    assert 0 < metrics["open"]["undefined"] < 100
    assert metrics["all"]["low"] < metrics["all"]["high"]
    assert math.isnan(metrics["none"]["value"])
    assert "undefined" in metrics["none"]["reason"]


def test_undefined_resamples_are_dropped_and_counted():
    rng = np.random.default_rng(6)
    scores = rng.random(20)
    task = diagnosis.one_vs_rest(np.stack([1 - scores, scores], axis=1), np.array([1, 1] + [0] * 18))
    metrics = intervals(weighted.statistics(task), np.arange(20), n_resamples=500)["metrics"]
    # A resample misses both positives with probability (18/20)^20 = 0.12.
    assert 30 < metrics["auroc"]["undefined"] < 95
    assert metrics["auroc"]["low"] <= metrics["auroc"]["value"] <= metrics["auroc"]["high"]
    assert metrics["accuracy"]["undefined"] == 0


def test_no_resamples_gives_values_alone():
    metric = intervals({"m": np.array([1.0, 0.0])}, ["p", "q"], n_resamples=0)["metrics"]["m"]
    assert metric["value"] == 0.5
    assert math.isnan(metric["low"])
    assert "no resamples" in metric["reason"]


def test_facts_are_told():
    facts = intervals({}, ["p", "q", "q"], n_resamples=7, confidence=0.9, seed=11)
    assert facts == {
        "metrics": {},
        "bootstrap": {
            "method": "cluster bootstrap, t on the logit scale",
            "unit": "group",
            "n_groups": 2,
            "n_examples": 3,
            "n_resamples": 7,
            "confidence": 0.9,
            "seed": 11,
        },
    }


@pytest.mark.parametrize(
    ("values", "groups", "options", "message"),
    [
        ({}, [], {}, "N >= 1"),
        ({"m": [1.0]}, ["p", "q"], {}, r"'m' must have shape \(2,\)"),
        ({"m": [1.0, np.inf]}, ["p", "q"], {}, "1 values of 'm' are infinite"),
        ({"m": [1.0]}, ["p"], {"n_resamples": -1}, "n_resamples"),
        ({"m": [1.0]}, ["p"], {"confidence": 95}, "between 0 and 1"),
    ],
)
def test_faults_are_named(values, groups, options, message):
    with pytest.raises(ValueError, match=message):
        intervals(values, groups, **options)
