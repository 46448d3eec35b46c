"""How often the generalist wins, ties and loses: the rates of Jeong et al. (EMNLP 2024, arXiv 2411.04118).

There a comparison is a win where the bootstrap interval of its difference lies above 0, a loss where it lies below, and
a tie otherwise. These are counts of intervals that are not corrected for their number: a description, no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmbench.reporting.findings import Finding, Findings, Tested
from vlmbench.reporting.questions import QUESTIONS, Question

# Rates of a few dozen comparisons are coarse; more replicates would not show.
REPLICATES = 2000
# Of fewer comparisons the resampled shares take so few values that an interval of them says nothing.
FEWEST = 5


Share = tuple[float, float | None, float | None]


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of comparisons.

    Attributes:
        question: Of which question.
        task: Of which task.
        n: Comparisons, each a pair on a domain.
        shares: Of wins, ties and losses, in 0..1, each with the ends of its interval; None below `FEWEST` comparisons.
        examples: The comparisons.
    """

    question: Question
    task: str
    n: int
    shares: tuple[Share, ...]
    examples: tuple[Finding, ...]


def rates(findings: Findings) -> list[Rates]:
    """Count wins, ties and losses of every question, from the verdicts' comparisons of a pair on a domain."""
    found = []
    for task in findings.tests:
        for question in QUESTIONS:
            tested = [
                (one, contrast)
                for one, contrast in findings.contrasts
                if one.question is question and one.task == task and not math.isnan(one.difference.low)
            ]
            if tested:
                shares = _shares(tested, findings.settings.confidence)
                found.append(Rates(question, task, len(tested), shares, tuple(one for one, _ in tested)))
    return found


def _shares(tested: Sequence[Tested], confidence: float) -> tuple[Share, ...]:
    """Rates with percentile intervals, resampling the comparisons and, in each, its test set.

    The resamples of a test set are those of its draws, so that comparisons on the same patients move together.
    """
    estimates = np.array([one.difference.estimate for one, _ in tested])
    reach = np.array([one.difference.high - one.difference.estimate for one, _ in tested])
    draws = np.stack([contrast.draws for _, contrast in tested])
    replicates = min(REPLICATES, draws.shape[1])
    moved = np.where(np.isnan(draws), estimates[:, None], draws)[:, :replicates]
    rng = np.random.default_rng(len(tested))
    chosen = rng.integers(len(tested), size=(len(tested), replicates))
    resampled = np.take_along_axis(moved, chosen, axis=0)
    wide = reach[chosen]
    tail = (1 - confidence) / 2
    shares: list[Share] = []
    for sign in (1, 0, -1):
        share = float(np.mean(_outcome(estimates, reach) == sign))
        if len(tested) < FEWEST:
            shares.append((share, None, None))
            continue
        low, high = np.quantile((_outcome(resampled, wide) == sign).mean(axis=0), [tail, 1 - tail])
        shares.append((share, float(low), float(high)))
    return tuple(shares)


def _outcome(estimates: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """1 where the interval lies above 0, -1 where it lies below, else 0."""
    return np.where(estimates - reach > 0, 1, np.where(estimates + reach < 0, -1, 0))
