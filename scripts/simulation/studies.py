"""One repetition of each simulated study, through the functions that the report calls."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simulation.worlds import cells, expected, seed_spread, strength, world
from vlmbench.metrics import bootstrap, draws, weighted
from vlmbench.metrics.comparison import Contrast, Difference, assess, average, contrast, holm

MARGIN = 0.02
#: Points (K,) and draws (K, R) of the seeds of one side.
Side = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One test set and the two sides of a comparison.

    Attributes:
        metric: `auroc` or `accuracy`.
        level: Of the left side.
        gap: Left minus right, for an expected strength.
        groups: Patients.
        sizes: Of their examples, `two` or `unequal`.
        prevalence: Of label 1.
        seeds: Cells of each side.
        right_seeds: Cells of the right side, if not as many; 1 without noise is an untuned model.
        noise: Standard deviation of the metric over the left side's seeds.
        right_noise: The same of the right side; None for the same.
        same: Whether nothing differs between seeds.
    """

    metric: str = "auroc"
    level: float = 0.85
    gap: float = 0.0
    groups: int = 100
    sizes: str = "two"
    prevalence: float = 0.4
    seeds: int = 1
    noise: float = 0.0
    right_noise: float | None = None
    same: bool = False
    right_seeds: int | None = None

    @property
    def sides(self) -> list[tuple[float, float]]:
        """Strength and its standard deviation over seeds, left and right."""
        noises = (self.noise, self.noise if self.right_noise is None else self.right_noise)
        levels = (self.level, self.level - self.gap)
        return [
            (strength(self.metric, level), seed_spread(self.metric, level, noise))
            for level, noise in zip(levels, noises, strict=True)
        ]

    @property
    def truth(self) -> float:
        """The difference, over all seeds and patients."""
        left, right = (expected(self.metric, *side) for side in self.sides)
        return left - right

    def told(self) -> str:
        """Describe it."""
        seeds = (
            "same"
            if self.same
            else f"{self.noise:g}" + ("" if self.right_noise is None else f" and {self.right_noise:g}")
        )
        return (
            f"{self.metric} | {self.level:g} | {self.gap:.3g} | {self.groups} | {self.sizes} | {self.prevalence:g} | "
            f"{self.seeds}{'' if self.right_seeds is None else f' and {self.right_seeds}'} | {seeds}"
        )


def compared(scenario: Scenario, seed: int, resamples: int) -> Difference:
    """Draw a world and compare its two sides."""
    rng = np.random.default_rng(seed)
    on = world(rng, scenario.groups, scenario.sizes, scenario.prevalence)
    n = scenario.seeds
    right = n if scenario.right_seeds is None else scenario.right_seeds
    both = [
        cell
        for (mean, spread), count in zip(scenario.sides, (n, right), strict=True)
        for cell in cells(rng, on, scenario.metric, mean, n_seeds=count, spread=spread, same=scenario.same)
    ]
    points, drawn = draws.draw(both, n_resamples=resamples, seed=int(rng.integers(2**40)))
    one = contrast(
        (points[:n], drawn[:n]),
        (points[n:], drawn[n:]),
        n_groups=scenario.groups,
        seeded=(n > 1, right > 1),
        test_set="one",
        freedom=draws.freedom(both[0]),
    )
    return assess(one, margin=MARGIN)


def covered(scenario: Scenario, seed: int, resamples: int) -> dict[str, float]:
    """Compare, and say where the truth lies."""
    found = compared(scenario, seed, resamples)
    if found.reason:
        return {"untested": 1.0}
    truth = scenario.truth
    return {
        "covered": float(found.low <= truth <= found.high),
        "below": float(truth < found.low),
        "above": float(truth > found.high),
        "width": found.high - found.low,
        "found": float(found.p < 0.05),
        "equivalent": float(found.p_equivalent < 0.05),
        "detectable": found.detectable,
        "needed": found.groups_needed,
    }


def covered_single(scenario: Scenario, seed: int, resamples: int) -> dict[str, float]:
    """Make the interval of one metric, and beside it the one of percentiles."""
    rng = np.random.default_rng(seed)
    on = world(rng, scenario.groups, scenario.sizes, scenario.prevalence)
    (cell,) = cells(rng, on, scenario.metric, scenario.sides[0][0], n_seeds=1)
    if cell.columns is None or weighted.support(cell.columns, cell.groups)["auroc"] < 2:
        return {"untested": 1.0}
    points, drawn = draws.draw([cell], n_resamples=resamples, seed=int(rng.integers(2**40)))
    defined = drawn[0][~np.isnan(drawn[0])]
    low, high = bootstrap.student(float(points[0]), defined, draws.freedom(cell), 0.95)
    plain = np.quantile(defined, [0.025, 0.975])
    truth = scenario.level
    return {
        "covered": float(low <= truth <= high),
        "below": float(truth < low),
        "above": float(truth > high),
        "width": high - low,
        "percentile": float(plain[0] <= truth <= plain[1]),
    }


#: Of the grids: patients of each domain, number of pairs, seeds of tuned cells, standard deviation over seeds.
DOMAINS, PAIRS, SEEDS, NOISE = (40, 60, 100, 150), 3, 3, 0.015


def grid(planted: float, seed: int, resamples: int) -> dict[str, float]:
    """Draw a grid, ask three questions of each pair and domain, each pair and all, and correct all.

    Both untuned; the generalist tuned; both tuned. Planted is by how much every tuned generalist is better than every
    other model; with nothing planted every difference is zero.
    """
    rng = np.random.default_rng(seed)
    asked: dict[tuple[str, int], list[Contrast]] = {}
    for number, groups in enumerate(DOMAINS):
        on = world(rng, groups, "two")
        level = 0.8
        spread = seed_spread("auroc", level, NOISE)
        made = []
        for _ in range(PAIRS):
            for role in ("generalist", "specialist"):
                made += cells(rng, on, "auroc", strength("auroc", level), n_seeds=1)
                better = planted if role == "generalist" else 0.0
                made += cells(rng, on, "auroc", strength("auroc", level + better), n_seeds=SEEDS, spread=spread)
        points, drawn = draws.draw(made, n_resamples=resamples, seed=int(rng.integers(2**40)))
        freedom, step = draws.freedom(made[0]), 1 + SEEDS
        for pair in range(PAIRS):
            general, special = 2 * pair * step, (2 * pair + 1) * step
            untuned = [(points[k : k + 1], drawn[k : k + 1]) for k in (general, special)]
            tuned = [(points[k + 1 : k + step], drawn[k + 1 : k + step]) for k in (general, special)]
            matches: dict[str, tuple[Side, Side, tuple[bool, bool]]] = {
                "untuned": (untuned[0], untuned[1], (False, False)),
                "general": (tuned[0], untuned[1], (True, False)),
                "tuned": (tuned[0], tuned[1], (True, True)),
            }
            for question, (left, right, seeded) in matches.items():
                made_of = contrast(left, right, n_groups=groups, seeded=seeded, test_set=str(number), freedom=freedom)
                asked.setdefault((question, pair), []).append(made_of)
    family = [one for some in asked.values() for one in some] + [average(some) for some in asked.values()]
    for question in ("untuned", "general", "tuned"):
        family.append(average([one for (name, _), some in asked.items() if name == question for one in some]))
    tested = [assess(one, margin=MARGIN) for one in family]
    p_values = np.array([one.p for one in tested])
    equal = np.array([one.p_equivalent for one in tested])
    return {
        "any": float(np.nanmin(holm(p_values.tolist())) < 0.05),
        "any uncorrected": float(np.nanmin(p_values) < 0.05),
        "share uncorrected": float(np.nanmean(p_values < 0.05)),
        "overall found": float(holm(p_values.tolist())[-2] < 0.05),
        "equivalent": float(np.nanmean(np.asarray(holm(equal.tolist())) < 0.05)),
        "tests": float(len(tested)),
    }


def with_groups(scenario: Scenario, groups: float, gap: float) -> Scenario:
    """Return a scenario with other patients and another difference."""
    return replace(scenario, groups=round(groups), gap=gap)
