"""Worlds in which the truth is known: test sets of patients, and models whose expected metric is planted.

Scores are binormal: a model of strength m scores an example m / 2 above or below 0 by its label, plus noise of variance
1, so that its AUROC is Phi(m / sqrt(2)) and its accuracy at threshold 0 is Phi(m / 2). Part of the noise is the
patient's, shared by all models; part the example's, shared by all models; part the model's; the rest each seed's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from vlmbench.metrics.diagnosis import one_vs_rest
from vlmbench.metrics.draws import Outcomes

Floats = NDArray[np.float64]

#: Examples of a patient are drawn from these.
SIZES = {"two": (2,), "unequal": (1, 1, 1, 1, 2, 2, 3, 6)}
#: Standard deviation of the noise of a score over that of a difference of what a metric compares with.
_SCALE = {"auroc": np.sqrt(2.0), "accuracy": 2.0}
PATIENT, EXAMPLE, MODEL = 0.3, 0.2, 0.2


@dataclass(frozen=True, slots=True)
class World:
    """One test set.

    Attributes:
        groups: (N,) patients.
        labels: (N,) of 0 and 1; those of one patient resemble each other.
        shared: (N,) noise that all models share, variance `PATIENT` + `EXAMPLE`.
        names: (N,) example ids.
    """

    groups: NDArray[np.str_]
    labels: NDArray[np.int64]
    shared: Floats
    names: NDArray[np.str_] = field(repr=False)


def world(rng: np.random.Generator, n_groups: int, sizes: str = "two", prevalence: float = 0.4) -> World:
    """Draw a test set."""
    of_patient = np.repeat(np.arange(n_groups), rng.choice(SIZES[sizes], n_groups))
    n = len(of_patient)
    own, patients = rng.random(n) < prevalence, rng.random(n_groups) < prevalence
    labels = np.where(rng.random(n) < 0.5, patients[of_patient], own).astype(np.int64)
    shared = np.sqrt(PATIENT) * rng.normal(size=n_groups)[of_patient] + np.sqrt(EXAMPLE) * rng.normal(size=n)
    return World(np.char.mod("%06d", of_patient), labels, shared, np.char.mod("%06d", np.arange(n)))


def strength(metric: str, value: float) -> float:
    """Return the strength at which a metric, `auroc` or `accuracy`, is expected to have a value."""
    return float(stats.norm.ppf(value) * _SCALE[metric])


def expected(metric: str, mean: float, spread: float) -> float:
    """Return the expected metric of a model whose strength over seeds is normal."""
    return float(stats.norm.cdf(mean / np.hypot(_SCALE[metric], spread)))


def seed_spread(metric: str, value: float, noise: float) -> float:
    """Return the standard deviation of the strength at which that of a metric over seeds is about `noise`."""
    at = strength(metric, value) / _SCALE[metric]
    return float(noise * _SCALE[metric] / stats.norm.pdf(at))


def cells(
    rng: np.random.Generator,
    on: World,
    metric: str,
    mean: float,
    *,
    n_seeds: int,
    spread: float = 0.0,
    same: bool = False,
) -> list[Outcomes]:
    """Draw the cells of a model's seeds.

    Args:
        rng: Source of randomness.
        on: Test set.
        metric: That the outcomes are for.
        mean: Expected strength.
        n_seeds: Number of cells.
        spread: Standard deviation of the strength over seeds.
        same: Whether nothing differs between seeds, as with a solver without randomness.
    """
    n = len(on.labels)
    share = 1 - PATIENT - EXAMPLE
    of_model = np.sqrt(share if same else MODEL) * rng.normal(size=n)
    out = []
    for _ in range(n_seeds):
        own = 0.0 if same else np.sqrt(share - MODEL) * rng.normal(size=n)
        score = special.expit((mean + spread * rng.normal()) * (on.labels - 0.5) + on.shared + of_model + own)
        columns = one_vs_rest(np.stack([1 - score, score], axis=1), on.labels)
        out.append(Outcomes(metric, on.names, on.groups, columns=columns))
    return out
