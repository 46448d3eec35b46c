"""Draws of many cells on shared resamples: equal to plain metrics on copied examples."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "bench"))

from resampling import cumulative
from synthetic_study import diagnosis_frame, vqa_frame

from vlmbench.metrics import diagnosis, draws
from vlmbench.metrics.bootstrap import resample
from vlmbench.metrics.ranked import Ranked

TASKS = {"binary": (2, False), "classes": (4, False), "labels": (3, True)}


def _frame(kind: str, rng: np.random.Generator, groups: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    n, (n_columns, multi_label) = len(groups), TASKS[kind]
    frame = pd.DataFrame(rng.random((n, n_columns)).round(1), columns=[f"score_{i}" for i in range(n_columns)])
    names = [f"target_{i}" for i in range(n_columns)] if multi_label else ["target"]
    return frame.assign(
        example_id=[f"{i:03d}" for i in range(n)], group=groups, **dict(zip(names, targets.T, strict=True))
    )


@pytest.mark.parametrize("metric", diagnosis.METRICS)
@pytest.mark.parametrize("kind", TASKS)
def test_draws_are_scikit_learns_on_copies_of_the_drawn_groups(kind, metric, monkeypatch):
    monkeypatch.setattr(draws, "_AT_ONCE", 4)
    rng = np.random.default_rng(3)
    n_columns, multi_label = TASKS[kind]
    groups = rng.permutation(np.repeat(np.arange(9), np.arange(1, 10))).astype(str)
    targets = rng.integers(2, size=(45, n_columns)) if multi_label else rng.integers(n_columns, size=(45, 1))
    frames = [_frame(kind, rng, groups, targets) for _ in range(3)]
    cells = [
        draws.outcomes(frame.sample(frac=1, random_state=0), "diagnosis", metric, multi_label=multi_label)
        for frame in frames
    ]
    points, drawn = draws.draw(cells, n_resamples=6, seed=5)
    codes = np.unique(groups, return_inverse=True)[1]
    weights = np.vstack([np.ones(45), *resample(codes, 6, 5)]).astype(int)
    for number, frame in enumerate(frames):
        scores = frame.filter(like="score_").to_numpy()
        plain = targets if multi_label else targets[:, 0]
        expected = [
            diagnosis.evaluate(scores.repeat(row, 0), plain.repeat(row, 0), multi_label=multi_label)[metric]
            for row in weights
        ]
        assert [points[number], *drawn[number]] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_ranking_of_runs_is_that_of_single_examples():
    rng = np.random.default_rng(4)
    for case in range(60):
        n, n_groups = int(rng.integers(2, 80)), int(rng.integers(1, 20))
        codes = rng.integers(n_groups, size=n)
        positive = rng.random(n) < rng.choice([0.1, 0.5, 0.95])
        scores = rng.random(n).round(int(rng.integers(1, 4)))
        counts = rng.integers(0, 3, size=(7, n_groups))
        expected = cumulative(scores, positive, counts[:, codes].astype(float))
        ranked = Ranked(scores, positive, codes, n_groups)
        for weights in (counts.T.astype(np.float32, order="C"), counts.T.astype(np.float64, order="C")):
            assert ranked.auroc(weights) == pytest.approx(expected[0], abs=1e-12, nan_ok=True), case
            assert ranked.average_precision(weights) == pytest.approx(expected[1], abs=1e-12, nan_ok=True), case


def test_means_leave_out_what_does_not_apply_and_undefined_stays_nan():
    frame = vqa_frame(12, 0.6, noise=1)
    frame["answer_type"] = ["open"] + ["closed"] * 11
    frame["options"] = [[]] * 12
    cell = draws.outcomes(frame, "vqa", "open_exact_match")
    points, drawn = draws.draw([cell], n_resamples=400, seed=2)
    assert cell.values is not None
    assert points[0] == cell.values[0]
    # The one group of six with an open question is missed by (5/6)^6 = 33 % of resamples.
    assert 0.25 < np.isnan(drawn).mean() < 0.42
    assert set(drawn[~np.isnan(drawn)]) == {points[0]}


def test_cells_on_other_examples_are_refused():
    one, other = (draws.outcomes(diagnosis_frame(n, 0.8, noise=0), "diagnosis", "auroc") for n in (20, 22))
    with pytest.raises(ValueError, match="same examples"):
        draws.draw([one, other], n_resamples=2, seed=0)
