"""Time paired resampling of AUROC: ours, one scikit-learn call a resample, and cumulative sums over examples.

    python scripts/bench/resampling.py [--cells 200] [--examples 5000] [--resamples 10000] [--json rows.json]

Ours draws all resamples for all cells. scikit-learn's roc_auc_score is called for `--called` resamples of one cell, and
cumulative sums, which take matrices of weights (resamples x examples), for `--summed` resamples of `--summed-cells`
cells; their times are multiplied up to the full size. Each must give our draws on the resamples that it is timed on.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from measure import Row, Timed, arguments_of, finish
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from vlmbench.metrics.bootstrap import resample
from vlmbench.metrics.diagnosis import one_vs_rest
from vlmbench.metrics.draws import Outcomes, draw

Floats = NDArray[np.float64]
T = TypeVar("T")


def cumulative(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Compute AUROC and average precision (R,) of scores (N,) under weights (R, N) by sums over all examples."""
    order = np.argsort(-scores, kind="stable")
    ranked, is_positive = scores[order], positive[order]
    start = np.searchsorted(-ranked, -ranked[is_positive], side="left")
    end = np.searchsorted(-ranked, -ranked[is_positive], side="right")
    weights = weights[:, order]
    of_positive = weights[:, is_positive]
    negatives, positives = np.zeros((2, len(weights), len(scores) + 1))
    np.cumsum(np.where(is_positive, 0.0, weights), axis=1, out=negatives[:, 1:])
    np.cumsum(np.where(is_positive, weights, 0.0), axis=1, out=positives[:, 1:])
    n_positive, n_negative, hits = positives[:, -1], negatives[:, -1], positives[:, end]
    with np.errstate(invalid="ignore", divide="ignore"):
        misranked = (of_positive * (negatives[:, start] + negatives[:, end])).sum(axis=1) / 2
        auroc = 1 - misranked / (n_positive * n_negative)
        precise = np.where(of_positive > 0, of_positive * (hits / (hits + negatives[:, end])), 0.0).sum(axis=1)
        return auroc, np.where((n_positive > 0) & (n_negative > 0), precise / n_positive, np.nan)


def cells_of(n_cells: int, n_examples: int) -> list[Outcomes]:
    """Return binary cells of one data set, two examples a patient, AUROC near 0.85."""
    rng = np.random.default_rng(0)
    target = (rng.random(n_examples) < 0.4).astype(int)
    names = np.array([f"{i:06d}" for i in range(n_examples)])
    cells = []
    for _ in range(n_cells):
        score = 1 / (1 + np.exp(-(1.5 * target + rng.normal(size=n_examples))))
        columns = one_vs_rest(np.stack([1 - score, score], axis=1), target)
        cells.append(Outcomes("auroc", names, np.array([f"{i // 2:06d}" for i in range(n_examples)]), columns=columns))
    return cells


def timed(compute: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds of a call, and what it gave."""
    start = time.perf_counter()
    result = compute()
    return time.perf_counter() - start, result


def main() -> None:
    """Time all three in turn."""
    parser = arguments_of(__doc__)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--called", type=int, default=100)
    parser.add_argument("--summed", type=int, default=400)
    parser.add_argument("--summed-cells", type=int, default=2)
    asked = parser.parse_args()
    cells = cells_of(asked.cells, asked.examples)
    codes = np.unique(cells[0].groups, return_inverse=True)[1]
    summed_cells = cells[: asked.summed_cells]
    all_draws = asked.cells * asked.resamples
    columns = [cell.columns for cell in cells if cell.columns is not None]
    seconds: dict[str, list[float]] = {"ours": [], "called": [], "summed": []}
    apart = 0.0
    for repetition in range(asked.repetitions):
        took, (_, draws) = timed(lambda: draw(cells, n_resamples=asked.resamples, seed=1))
        seconds["ours"].append(took)
        weights = np.concatenate(list(resample(codes, max(asked.called, asked.summed), seed=1)))
        truth, scores = columns[0].truth[:, 0], columns[0].scores[:, 0]
        took, called = timed(
            lambda: [roc_auc_score(truth, scores, sample_weight=row) for row in weights[: asked.called]]  # noqa: B023
        )
        seconds["called"].append(took / asked.called * all_draws)
        took, summed = timed(
            lambda: [
                cumulative(one.scores[:, 0], one.truth[:, 0], part)[0]
                for one in columns[: len(summed_cells)]
                for part in np.array_split(weights[: asked.summed], max(1, asked.summed // 400))  # noqa: B023
            ]
        )
        seconds["summed"].append(took / (asked.summed * len(summed_cells)) * all_draws)
        of_sums = np.concatenate(summed).reshape(len(summed_cells), -1)
        gaps = (np.abs(draws[0, : asked.called] - called), np.abs(draws[: len(of_sums), : asked.summed] - of_sums))
        apart = max(apart, *(float(gap.max()) for gap in gaps))
        if apart > 1e-9:
            sys.exit(f"the draws differ by {apart:.2g}")
        print(f"repetition {repetition + 1}/{asked.repetitions}: ours {seconds['ours'][-1]:.1f} s", flush=True)
    where = f"2 cores, {asked.cells} cells of {asked.examples} examples, {asked.resamples} resamples"
    equal = f"draws, within {apart:.1g}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    note = "The baseline's time is that of a part of the resamples, multiplied up."
    rows = []
    for name, told in (("called", "roc_auc_score in a loop"), ("summed", "cumulative sums over examples")):
        row = Timed(seconds["ours"], seconds[name]).into(Row(10, "paired AUROC draws", told, where, equal, note=note))
        row.figures["peak_MB"] = peak
        rows.append(row)
    finish(rows, asked.json)


if __name__ == "__main__":
    main()
