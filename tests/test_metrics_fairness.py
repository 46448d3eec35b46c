"""Metrics by subgroup against scikit-learn on the subsets; gaps against what noise makes and what is planted."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix, roc_auc_score
from synthetic_study import diagnosis_frame

from vlmbench.metrics.attributes import NOT_KNOWN, in_order, named
from vlmbench.metrics.draws import Outcomes, outcomes
from vlmbench.metrics.fairness import by_subgroup, gap, rates
from vlmbench.metrics.parts import subset


def gap_of(found):
    made = gap(found)
    assert made is not None
    return made


def both(frame, labels, metric="auroc", permutations=0, resamples=50):
    one = outcomes(frame, "diagnosis", metric)
    times = {"n_resamples": resamples, "n_permutations": permutations, "seed": 3}
    return one, by_subgroup([one], labels, in_order(set(labels)), **times)


@pytest.mark.parametrize("metric", ["auroc", "accuracy"])
def test_points_are_those_of_the_subsets(metric):
    frame = diagnosis_frame(300, 0.8, noise=1).sample(frac=1, random_state=0)
    ordered = frame.sort_values("example_id")
    labels = ordered["attribute_sex"].to_numpy(str)
    one, found = both(frame, labels, metric)
    for name, point, n in zip(found.names, found.points, found.n_examples, strict=True):
        part = ordered[ordered["attribute_sex"] == name]
        hits = (part["score_1"] > part["score_0"]) == (part["target"] == 1)
        expected = roc_auc_score(part["target"], part["score_1"]) if metric == "auroc" else hits.mean()
        assert n == len(part)
        assert point == pytest.approx(expected, abs=1e-12)
        for kind, value in rates(one).items():
            tn, fp, fn, tp = confusion_matrix(part["target"], part["score_1"] > part["score_0"]).ravel()
            shown = subset(value, labels == name).values
            assert shown is not None
            assert np.nanmean(shown) == pytest.approx(tp / (tp + fn) if kind == "tpr" else fp / (fp + tn))


def test_a_subgroup_that_is_too_small_has_no_number_and_makes_no_gap():
    frame = diagnosis_frame(200, 0.8, noise=1)
    labels = np.where(np.arange(200) < 18, "few", "many")  # nine patients
    _, found = both(frame, labels)
    assert np.isnan(found.points).tolist() == [True, False]
    assert gap(found) is None


def test_noise_alone_is_rarely_taken_for_a_gap_though_every_gap_is_above_zero():
    rng = np.random.default_rng(0)
    gaps = []
    for number in range(60):
        frame = diagnosis_frame(160, 0.75, noise=number, data=number)
        labels = rng.permutation(np.repeat(["a", "b", "c", "d"], 20))[np.arange(160) // 2]  # of 80 patients
        gaps.append(gap_of(both(frame, labels, permutations=60, resamples=60)[1]))
    values, noise = np.mean([one.value for one in gaps]), np.mean([one.noise for one in gaps])
    assert values > 0.1  # which is why it needs a reference
    assert noise == pytest.approx(values, rel=0.15)
    assert sum(one.p < 0.05 for one in gaps) <= 8  # binomial(60, 0.05) exceeds it once in a hundred
    assert sum(one.low > 0 for one in gaps) <= 8


def test_a_planted_gap_is_found_and_its_interval_holds_it():
    good, bad = diagnosis_frame(600, 0.9, noise=1), diagnosis_frame(600, 0.6, noise=2)
    female = good["attribute_sex"] == "female"
    frame = pd.concat([good[female], bad[~female]])
    labels = frame.sort_values("example_id")["attribute_sex"].to_numpy(str)
    found = gap_of(both(frame, labels, permutations=200, resamples=200)[1])
    assert (found.worst, found.best) == ("male", "female")
    assert found.p < 0.001
    assert 0 < found.low < 0.3 < found.high


def test_numbers_fall_into_the_subgroups_that_a_record_names():
    ages = pd.Series([39.0, 40.0, 49.5, 50.0, None])
    assert named(ages, ["30-39", "40-49", "50-59", NOT_KNOWN]).tolist() == [
        "30-39",
        "40-49",
        "40-49",
        "50-59",
        NOT_KNOWN,
    ]
    doses = pd.Series([1e-5, 0.15, 0.2])
    assert named(doses, ["0 to 0.1", "0.1 to 0.2", "0.2 to 0.3"]).tolist() == ["0 to 0.1", "0.1 to 0.2", "0.2 to 0.3"]
    assert in_order(set(named(pd.Series(range(100))))) == [
        "below 24.75",
        "24.75 to 49.5",
        "49.5 to 74.25",
        "74.25 and above",
    ]
    assert named(pd.Series(["AP", None, "rare"]), ["AP", "PA", NOT_KNOWN, "others"]).tolist() == [
        "AP",
        NOT_KNOWN,
        "others",
    ]


def test_the_interval_of_a_gap_of_few_patients_is_that_of_the_t_distribution():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 10)
    names = np.char.mod("%02d", np.arange(20))
    values = rng.random(20)
    cell = Outcomes("accuracy", names, names, values)
    found = by_subgroup([cell], labels, ["a", "b"], n_resamples=4000, n_permutations=1, seed=0)
    one, (left, right) = gap(found), (values[labels == name] for name in "ab")
    assert one is not None
    se = np.sqrt(left.var(ddof=1) / 10 + right.var(ddof=1) / 10)
    assert one.high - one.value == pytest.approx(stats.t.ppf(0.975, 9) * se, rel=0.08)
