"""Contrasts and their tests, against scipy and statsmodels."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from vlmbench.metrics import draws, weighted
from vlmbench.metrics.comparison import Contrast, _noncentrality, assess, average, contrast, holm
from vlmbench.metrics.diagnosis import one_vs_rest
from vlmbench.metrics.mixed import mixed_model, over_domains, random_effects


def _cell(values: np.ndarray) -> draws.Outcomes:
    names = np.char.mod("%04d", np.arange(len(values)))
    return draws.Outcomes("accuracy", names, names, values=values)


def _sides(left: list[np.ndarray], right: list[np.ndarray], *, test_set: str = "one", seed: int = 0) -> Contrast:
    points, drawn = draws.draw([_cell(one) for one in (*left, *right)], n_resamples=8000, seed=seed)
    n = len(left)
    return contrast(
        (points[:n], drawn[:n]),
        (points[n:], drawn[n:]),
        n_groups=len(left[0]),
        seeded=(True, True),
        test_set=test_set,
        freedom=draws.freedom(_cell(left[0])),
    )


def test_a_paired_difference_is_the_paired_t_test_and_the_two_one_sided_tests():
    rng = np.random.default_rng(0)
    left = rng.normal(0.15, 1, size=40)
    right = left + rng.normal(0.1, 0.5, size=40)
    found = assess(_sides([left], [right]), margin=0.3)
    expected = stats.ttest_rel(left, right)
    assert found.df == 39
    assert found.estimate == pytest.approx((left - right).mean())
    assert found.se == pytest.approx(stats.sem(left - right), rel=0.03)
    assert found.p == pytest.approx(expected.pvalue, rel=0.2)
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval(), abs=0.02)
    assert found.p_equivalent == pytest.approx(ttost_paired(left, right, -0.3, 0.3)[0], rel=0.2)
    assert found.single_seed


def test_detectable_and_groups_needed_are_those_of_statsmodels():
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=(2, 30))
    found = assess(_sides([left], [right]), margin=0.4)
    spread = found.se * math.sqrt(30)
    effect = TTestPower().solve_power(nobs=30, alpha=0.05, power=0.8)
    assert found.detectable / spread == pytest.approx(effect, rel=1e-3)
    needed = TTestPower().solve_power(effect_size=0.4 / spread, alpha=0.05, power=0.8)
    assert found.groups_needed == pytest.approx(needed, rel=0.03)


def test_seeds_add_what_their_spread_holds_beyond_the_examples():
    rng = np.random.default_rng(2)
    base, right = rng.normal(size=200), rng.normal(size=200)
    shifts = np.array([-0.3, 0.0, 0.3])
    # The seeds differ by a shift alone: no example's noise is in their spread.
    shifted = _sides([base + shift for shift in shifts], [right])
    one = assess(_sides([base], [right]), margin=0.1)
    found = assess(shifted, margin=0.1)
    assert found.se**2 == pytest.approx(one.se**2 + shifts.var(ddof=1) / 3)
    of_seeds, of_groups = shifts.var(ddof=1) / 3, one.se**2
    assert found.df == pytest.approx(found.se**4 / (of_seeds**2 / 2 + of_groups**2 / 199))
    assert math.isinf(found.groups_needed)
    # The seeds differ by the noise of examples alone: nothing is left to add, whatever the sample.
    noisy = [_sides([base + noise for noise in rng.normal(size=(3, 200))], [right], seed=k) for k in range(12)]
    added = [side.spread - side.own for one_of in noisy for side in one_of.seed_noise]
    assert abs(np.mean(added)) < 3 * np.std(added) / math.sqrt(len(added))
    # Seeds that make no difference add nothing and take no degree of freedom.
    same = assess(_sides([base] * 3, [right]), margin=0.1)
    assert dataclasses.replace(same, single_seed=True) == dataclasses.replace(one, single_seed=True)


def test_averages_add_within_a_test_set_and_keep_test_sets_apart():
    rng = np.random.default_rng(3)
    left, right, other = rng.normal(size=(3, 40))
    first, second = _sides([left], [right], test_set="a"), _sides([left], [other], test_set="a")
    joint = assess(average([first, second]), margin=0.1)
    assert joint.se == pytest.approx(stats.sem(left - (right + other) / 2), rel=0.03)
    assert joint.df == 39
    small = _sides([left[:10]], [right[:10] * 5], test_set="b", seed=9)
    two = assess(average([first, small]), margin=0.1)
    variances = [assess(one, margin=0.1).se ** 2 / 4 for one in (first, small)]
    assert two.se**2 == pytest.approx(sum(variances))
    assert two.df == pytest.approx(sum(variances) ** 2 / (variances[0] ** 2 / 39 + variances[1] ** 2 / 9))
    # The same cells against themselves: their seeds leave with the difference.
    seeds = [left, left + 0.5]
    against = average([_sides(seeds, [right], test_set="a"), _sides([right], seeds, test_set="a")])
    assert [side.coefficient for side in against.seed_noise] == [0.0]


@pytest.mark.parametrize("df", [1.0, 2.5, 19.0])
def test_the_detectable_difference_is_found_as_often_as_promised(df):
    reach = stats.t.ppf(0.975, df)
    assert stats.nct.sf(reach, df, _noncentrality(df, 0.95, 0.8)) == pytest.approx(0.8, abs=1e-4)
    # Where scipy's inverse never ends the error alone varies.
    assert _noncentrality(df, 0.999999, 0.8) > _noncentrality(df, 0.999, 0.8)


def test_few_positive_groups_leave_few_degrees_of_freedom():
    target = np.array([1] * 3 + [0] * 97)
    score = np.linspace(0, 1, 100)
    task = one_vs_rest(np.stack([1 - score, score], axis=1), target)
    # As scipy's Welch test has them for samples of 3 and 97 with one variance.
    samples = [np.tile([-1.0, 0, 1], 1), np.linspace(-1, 1, 97)]
    samples = [one / one.std(ddof=1) for one in samples]
    assert weighted.freedom(task, np.arange(100))["auroc"] == pytest.approx(
        stats.ttest_ind(*samples, equal_var=False).df
    )


def test_holm_is_that_of_statsmodels_and_leaves_out_what_has_no_test():
    p_values = np.random.default_rng(4).random(20) ** 3
    expected = multipletests(p_values, method="holm")[1]
    found = holm([math.nan, *p_values, math.nan])
    assert found[1:-1] == pytest.approx(expected)
    assert np.isnan(found[[0, -1]]).all()


def test_what_cannot_be_tested_says_why():
    same = np.ones(20)
    assert "the same in every resample" in assess(_sides([same], [same]), margin=0.1).reason
    assert "fewer than two groups" in assess(_sides([same[:1]], [same[:1]]), margin=0.1).reason


def _cells(n_domains: int, n_pairs: int, spread: float, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for domain in range(n_domains):
        level, difference = 0.8 + 0.05 * rng.normal(), 0.03 + spread * rng.normal()
        for pair in range(n_pairs):
            of_pair = 0.03 * rng.normal()
            for role, side in (("generalist", 0.5), ("specialist", -0.5)):
                value = level + of_pair + side * difference + 0.01 * rng.normal()
                rows.append((value, role, f"d{domain}", f"p{pair}"))
    return pd.DataFrame(rows, columns=["value", "role", "domain", "pair"])


def test_the_mixed_model_of_one_pair_is_the_paired_t_test_over_domains():
    frame = _cells(8, 1, 0.03, seed=0)
    found = mixed_model(frame)
    sides = [frame.loc[frame["role"] == role, "value"].to_numpy() for role in ("generalist", "specialist")]
    expected = stats.ttest_rel(*sides)
    assert found.converged
    assert found.p == pytest.approx(expected.pvalue, rel=1e-3)
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval(), rel=1e-3)


def test_a_fit_at_the_boundary_gives_a_reason_and_the_random_effects_stand_in():
    frame = _cells(5, 3, 0.03, seed=1)
    frame["value"] = np.where(frame["role"] == "generalist", 0.6, 0.5) + np.random.default_rng(1).normal(0, 0.05, 30)
    chosen, beside = over_domains(frame, [0.1, 0.05, 0.02, 0.07], [0.001, 0.002, 0.001, 0.003])
    assert beside is not None
    assert not beside.converged
    assert math.isnan(beside.estimate)
    assert "boundary" in beside.warnings[0]
    assert chosen.method.startswith("random effects")
    assert chosen.low < chosen.estimate < chosen.high
    assert "too few" in mixed_model(frame[frame["domain"] < "d2"]).warnings[0]


def test_random_effects_of_equal_variances_are_the_t_test_of_the_differences():
    differences = np.random.default_rng(5).normal(0.05, 0.1, size=7)
    found = random_effects([*differences, np.nan], [1e-4] * 8)
    expected = stats.ttest_1samp(differences, 0)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx(expected.confidence_interval(), rel=1e-6)
    assert found.n_domains == 7
    # Domains that agree more than their errors allow do not make the interval narrower than the errors.
    assert random_effects([0.05, 0.05, 0.05], [0.01] * 3).se == pytest.approx(math.sqrt(0.01 / 3))
