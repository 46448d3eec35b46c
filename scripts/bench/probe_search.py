"""Time a search over 19 strengths of a linear probe's penalty: ours, scikit-learn's, and the DataLoader way.

    python scripts/bench/probe_search.py [--rows 7007] [--width 512] [--timed 2] [--workers 4] [--json rows.json]

The features are a mixture of Gaussians: 7 classes as unequal as HAM10000's and overlapping, with the falling spectrum
and the unit norm of CLIP's embeddings. `--rows` of them train, a seventh as many validate, and 20,000 more tell the
accuracy of what each way chooses on validation.

scikit-learn's LogisticRegression solves the same 19 problems, each at the loosest of its tolerances at which the
objective is within 1e-4 of ours; finding these is not timed.

The DataLoader way is CLIP_benchmark's with its defaults: AdamW with a cosine schedule from a learning rate of 0.1, 10
epochs in batches of 64 that 4 workers gather, one run for each of 19 weight decays (its search makes as many). All 19
are run untimed for the accuracy, without workers. Of the timed ones `--timed` are run and their mean is taken 19 times:
a weight decay changes no work. The time without workers stands beside it.
"""

from __future__ import annotations

import math
import statistics
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from measure import Row, Timed, arguments_of, finish, in_turn
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from vlmbench.tuning.linear_probe import Solution, search

STRENGTHS = [float(value) for value in np.logspace(-6, 2, 19)]
DECAYS = STRENGTHS  # CLIP_benchmark's range of weight decays is the same
TOLERANCES = (1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 1e-7, 1e-8)
SHARES = np.array([0.67, 0.11, 0.11, 0.05, 0.033, 0.0142, 0.0115])
TESTED = 20_000


@dataclass(frozen=True)
class Features:
    """Features (N, F) and classes (N,) of the three splits."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def standardised(self) -> Features:
        """Return them on the scale of the training features."""
        mean, std = self.train[0].mean(0), self.train[0].std(0)
        return Features(*(((x - mean) / std, y) for x, y in (self.train, self.val, self.test)))


def mixture(rows: int, width: int, seed: int = 0) -> Features:
    """Draw the features."""
    rng = np.random.default_rng(seed)
    sizes = (rows, rows // 7, TESTED)
    spread = np.arange(1, width + 1) ** -0.45
    axes, _ = np.linalg.qr(rng.normal(size=(width, width)))
    y = rng.choice(len(SHARES), size=sum(sizes), p=SHARES / SHARES.sum())
    # Classes as far apart whatever the width.
    centres = rng.normal(size=(len(SHARES), width)) * spread * 0.11 * math.sqrt(512 / width)
    x = (rng.normal(size=(len(y), width)) * spread + centres[y]) @ axes
    x += rng.normal(size=width) * math.sqrt((spread**2).mean())
    features = torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)).float()
    parts = zip(features.split(sizes), torch.from_numpy(y).split(sizes), strict=True)
    return Features(*parts)


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Return percent."""
    return 100 * float((logits.argmax(1) == y).float().mean())


@dataclass(frozen=True)
class Found:
    """What a search ends with: accuracy on test in percent, and the objective of each strength."""

    accuracy: float
    objectives: tuple[float, ...] = ()


def ours(data: Features) -> Found:
    """Solve all strengths at once."""
    data = data.standardised()

    def logits(solution: Solution, x: Tensor) -> Tensor:
        return x.double() @ solution.weight.T + solution.bias

    best, scored = search(
        *data.train, len(SHARES), STRENGTHS, lambda solution: accuracy(logits(solution, data.val[0]), data.val[1])
    )
    if not all(solution.converged for solution, _ in scored):
        raise AssertionError("not every strength is solved to the tolerance")
    objectives = tuple(solution.objective for solution, _ in scored)
    return Found(accuracy(logits(best, data.test[0]), data.test[1]), objectives)


def objective(data: Features, weight: Tensor, bias: Tensor, strength: float) -> float:
    """Return scikit-learn's objective divided by C and the number of rows."""
    x, y = data.train
    loss = functional.cross_entropy(x.double() @ weight.T + bias, y)
    return float(loss + weight.square().sum() / (2 * strength * len(x)))


def fitted(data: Features, strength: float, tolerance: float) -> tuple[LogisticRegression, float]:
    """Return scikit-learn's model and its objective."""
    x, y = (part.numpy() for part in data.train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few iterations: the objective is looked at
        model = LogisticRegression(C=strength, tol=tolerance, max_iter=20_000).fit(x.astype(np.float64), y)
    reached = objective(data, torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_), strength)
    return model, reached


def tolerances(data: Features, objectives: tuple[float, ...]) -> list[float]:
    """Return the loosest tolerance for each strength at which scikit-learn's objective is within 1e-4 of ours."""
    data, chosen, first = data.standardised(), [], 0
    for strength, goal in zip(STRENGTHS, objectives, strict=True):
        while fitted(data, strength, TOLERANCES[first])[1] > goal * (1 + 1e-4):
            first += 1  # a weaker penalty never needs a looser one; no more of them is a failed check
        chosen.append(TOLERANCES[first])
    return chosen


def scikit(data: Features, tolerance: list[float]) -> Found:
    """Solve one strength after another with scikit-learn."""
    data = data.standardised()
    x_val, y_val = (part.numpy() for part in data.val)
    best, highest, objectives = None, -1.0, []
    for strength, tol in zip(STRENGTHS, tolerance, strict=True):
        model, reached = fitted(data, strength, tol)
        objectives.append(reached)
        score = 100 * float(model.score(x_val, y_val))
        if score > highest:
            best, highest = model, score
    assert best is not None
    return Found(100 * float(best.score(*(part.numpy() for part in data.test))), tuple(objectives))


def trained(data: Features, decay: float, workers: int) -> torch.nn.Linear:
    """Train one probe the DataLoader way and look at validation."""
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(*data.train), batch_size=64, shuffle=True, num_workers=workers)
    model = torch.nn.Linear(data.train[0].shape[1], len(SHARES))
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=decay)
    step, last = 0, 10 * len(loader)
    for _ in range(10):
        for x, y in loader:
            for group in optimiser.param_groups:
                group["lr"] = 0.05 * (1 + math.cos(math.pi * step / last))
            step += 1
            optimiser.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimiser.step()
    with torch.no_grad():
        for x, _ in DataLoader(TensorDataset(*data.val), batch_size=64, num_workers=workers):
            model(x)
    return model


@cache
def chosen_of_all(rows: int, width: int) -> float:
    """Return the accuracy on test of the weight decay that validation picks, in percent."""
    data, best, highest = mixture(rows, width), 0.0, -1.0
    for decay in DECAYS:
        model = trained(data, decay, 0)
        with torch.no_grad():
            score = accuracy(model(data.val[0]), data.val[1])
            if score > highest:
                best, highest = accuracy(model(data.test[0]), data.test[1]), score
    return best


def same_objectives(left: Found, right: Found) -> None:
    """Raise where an objective differs by more than 1e-4, or the accuracy by more than 0.2 points."""
    np.testing.assert_allclose(left.objectives, right.objectives, rtol=1e-4)
    not_below(left, right)
    not_below(right, left)


def not_below(left: Found, right: Found) -> None:
    """Raise where the first is less accurate by more than 0.2 points."""
    if left.accuracy < right.accuracy - 0.2:
        raise AssertionError(f"accuracies of {left.accuracy:.2f} and {right.accuracy:.2f} %")


def main() -> None:
    """Check, time, print."""
    parser = arguments_of(__doc__)
    parser.add_argument("--rows", type=int, default=7007)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--timed", type=int, default=2, help="runs of the DataLoader way in a repetition")
    parser.add_argument("--workers", type=int, default=4, help="of the DataLoader")
    arguments = parser.parse_args()
    rows, width, runs = arguments.rows, arguments.width, arguments.timed
    data = mixture(rows, width)
    where = f"CPU, {torch.get_num_threads()} threads, {rows:,} x {width}, {len(SHARES)} classes, 19 strengths"
    found = ours(data)
    theirs = Found(chosen_of_all(rows, width))
    not_below(found, theirs)
    tolerance = tolerances(data, found.objectives)

    timed = in_turn(lambda: ours(data), lambda: scikit(data, tolerance), arguments.repetitions, same_objectives)
    peer = Row(
        2,
        "all strengths as one batch",
        "scikit-learn's LogisticRegression, one strength after another",
        where,
        f"objectives within 1e-4; accuracy {found.accuracy:.2f} %",
        "2",
    )

    def loader_way(workers: int) -> Timed:
        def some() -> Found:
            for decay in DECAYS[:runs]:
                trained(data, decay, workers)
            return theirs

        part = in_turn(lambda: ours(data), some, arguments.repetitions, not_below)
        return Timed(part.ours, [seconds * len(DECAYS) / runs for seconds in part.baseline])

    with_workers, without = loader_way(arguments.workers), loader_way(0)
    loader = Row(
        2,
        "all strengths as one batch",
        f"the DataLoader way of CLIP_benchmark, {arguments.workers} workers",
        where,
        f"accuracy {found.accuracy:.2f} against {theirs.accuracy:.2f} %",
        "15",
        figures={
            "without_workers_s": statistics.median(without.baseline),
            "ratio_without_workers": statistics.median(without.ratios),
        },
        note=f"{runs} of its 19 runs are timed and scaled.",
    )
    finish([timed.into(peer), with_workers.into(loader)], arguments.json)


if __name__ == "__main__":
    main()
