"""Differences before they are tested: what each test set and each side's seeds add to them.

The estimate is the mean over the seeds of one side minus that of the other. Examples and seeds are crossed: each seed
met the same examples. The variance is that of the resampled groups, from paired draws, plus that of the seeds, from
their spread. The spread holds once more the noise of the examples that each seed has for itself, which the draws of
single seeds tell and which is taken off (Owen 2007, "The pigeonhole bootstrap", Ann Appl Stat 1:386-411, on what
resampling both would count twice).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """The seeds of one side on one test set.

    Attributes:
        key: The same wherever the same cells stand.
        coefficient: With which their mean enters the estimate.
        spread: Variance of their mean as the spread of the seeds tells it.
        own: Part of it that is the noise of examples that each seed has for itself, as the draws tell it. What the
            choice of seeds adds is the difference, an unbiased estimate that may be negative.
        freedom: Degrees of freedom of `spread`.
    """

    key: tuple[str, bytes]
    coefficient: float
    spread: float
    own: float
    freedom: float


@dataclass(frozen=True, slots=True)
class Resampled:
    """What one test set adds to an estimate.

    Attributes:
        draws: (R,) its term under each resample of groups; NaN where undefined.
        freedom: Degrees of freedom of their variance.
    """

    draws: Floats
    freedom: float

    @property
    def variance(self) -> float:
        """Of the term; NaN where fewer than two draws are defined."""
        defined = self.draws[~np.isnan(self.draws)]
        if len(defined) < 2 or self.freedom <= 0:
            return math.nan
        # Drawing from the groups at hand, whose mean is the sample's own, gives (G - 1) / G of the variance.
        return float(np.var(defined, ddof=1)) * (self.freedom + 1) / self.freedom


@dataclass(frozen=True, slots=True)
class Contrast:
    """A difference before it is tested; contrasts average to contrasts.

    Attributes:
        estimate: Left minus right.
        draws: (R,) the same under each resample of groups; NaN where undefined.
        n_groups: Groups that were resampled; of the smallest test set where there are several.
        test_sets: What each test set adds, by name. Test sets are independent of each other.
        seed_noise: Of each side whose seeds differ.
        single_seed: Whether some trained side ran one seed alone, so that its seed noise is not known.
    """

    estimate: float
    draws: Floats
    n_groups: int
    test_sets: dict[str, Resampled]
    seed_noise: tuple[SeedNoise, ...] = ()
    single_seed: bool = False


def contrast(
    left: tuple[Floats, Floats],
    right: tuple[Floats, Floats],
    *,
    n_groups: int,
    seeded: tuple[bool, bool],
    test_set: str = "",
    freedom: float | None = None,
) -> Contrast:
    """Contrast two sides of the same examples.

    Args:
        left: Points (K,) and draws (K, R) of the seeds of one side, as `draws.draw` gives them.
        right: The same of the other, on the same resamples.
        n_groups: Groups that were resampled.
        seeded: Of each side, whether another seed could give another result.
        test_set: Its name. Contrasts of one name must be of the same resamples: their draws are paired as well.
        freedom: Degrees of freedom of the resampling, as `draws.freedom` gives them; left out, `n_groups` - 1.
    """
    freedom = n_groups - 1.0 if freedom is None else freedom
    noise = [_seed_noise(test_set, side, sign, freedom) for side, sign in ((left, 1.0), (right, -1.0))]
    single = any(varies and len(points) == 1 for (points, _), varies in zip((left, right), seeded, strict=True))
    draws = left[1].mean(axis=0) - right[1].mean(axis=0)
    return Contrast(
        estimate=float(left[0].mean() - right[0].mean()),
        draws=draws,
        n_groups=n_groups,
        test_sets={test_set: Resampled(draws, freedom)},
        seed_noise=tuple(one for one in noise if one is not None),
        single_seed=single,
    )


def average(contrasts: Sequence[Contrast]) -> Contrast:
    """Average contrasts with equal weight.

    Contrasts of the same test set add up resample by resample, so that what they share is neither lost nor counted
    twice; different test sets are independent, and each keeps its degrees of freedom. The seeds of different cells are
    independent; a side that stands in several contrasts stands in them with the same seeds.
    """
    n = len(contrasts)
    terms: dict[str, list[Resampled]] = defaultdict(list)
    noise: dict[tuple[str, bytes], list[SeedNoise]] = defaultdict(list)
    for one in contrasts:
        for name, term in one.test_sets.items():
            terms[name].append(term)
        for side in one.seed_noise:
            noise[side.key].append(side)
    return Contrast(
        estimate=math.fsum(one.estimate for one in contrasts) / n,
        draws=np.mean([one.draws for one in contrasts], axis=0),
        n_groups=min(one.n_groups for one in contrasts),
        test_sets={
            name: Resampled(np.sum([term.draws for term in some], axis=0) / n, min(term.freedom for term in some))
            for name, some in terms.items()
        },
        seed_noise=tuple(
            replace(sides[0], coefficient=math.fsum(side.coefficient for side in sides) / n) for sides in noise.values()
        ),
        single_seed=any(one.single_seed for one in contrasts),
    )


def _seed_noise(test_set: str, side: tuple[Floats, Floats], sign: float, freedom: float) -> SeedNoise | None:
    points, draws = side
    n_seeds = len(points)
    spread = float(np.var(points, ddof=1)) if n_seeds > 1 else 0.0
    if spread <= 1e-24 or math.isnan(spread):
        return None
    own = math.fsum(Resampled(apart, freedom).variance for apart in draws - draws.mean(axis=0)) / (n_seeds - 1)
    return SeedNoise(
        key=(test_set, points.tobytes()),
        coefficient=sign,
        spread=spread / n_seeds,
        own=0.0 if math.isnan(own) else own / n_seeds,
        freedom=n_seeds - 1.0,
    )
