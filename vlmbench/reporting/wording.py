"""Verdicts in words: never stronger than the tests behind them."""

from __future__ import annotations

import math
from typing import Literal

from vlmbench.metrics.comparison import Difference
from vlmbench.reporting.text import MINUS, count_text, interval_text, value_text

Verdict = Literal["better", "worse", "equivalent", "cannot tell"]
# Below this many resampled groups a standard error is itself uncertain by an eighth and more. Percentiles would be too
# narrow as well (Cameron, Gelbach & Miller 2008, Rev Econ Stat 90:414-427); the t distribution makes up for that.
FEW_GROUPS = 30
# A standard error from fewer patients errs by a fourth and more, and a number of patients by twice that.
FEWEST_TO_PLAN = 10


def judge(difference: Difference, p: float, p_equivalent: float, *, alpha: float) -> Verdict:
    """Judge the left side of a difference from its corrected p-values; NaN, no test, gives "cannot tell"."""
    if difference.reason or math.isnan(difference.estimate):
        return "cannot tell"
    if p <= alpha:
        return "better" if difference.estimate > 0 else "worse"
    return "equivalent" if p_equivalent <= alpha else "cannot tell"


def p_number(p: float) -> str:
    """A p-value as a number, rounded up, so that it is never shown smaller than it is."""
    return "< 0.001" if p < 0.001 else f"{min(1.0, math.ceil(p * 1000 - 1e-9) / 1000):.3f}"


def p_text(p: float) -> str:
    """A p-value in a sentence."""
    number = p_number(p)
    return f"p {number}" if number.startswith("<") else f"p = {number}"


def signed(value: float) -> str:
    """A difference with its sign; more decimals where three would make it 0."""
    text = value_text(abs(value))
    return f"{MINUS if value < 0 else '+'}{text}"


def difference_text(difference: Difference) -> str:
    """Estimate and interval, or the estimate and why it has none."""
    if math.isnan(difference.estimate):
        return f"no difference: {difference.reason or 'the metric is undefined'}"
    if math.isnan(difference.low):
        return f"{signed(difference.estimate)}, no interval: {difference.reason}"
    return f"{signed(difference.estimate)} {interval_text(difference.low, difference.high)}"


def claim(left: str, right: str, verdict: Verdict, *, margin: float, plural: bool = False) -> str:
    """The verdict as a clause about two sides."""
    is_ = "are" if plural else "is"
    if verdict == "equivalent":
        return f"{left} {is_} equivalent to {right} within ±{margin:g}"
    if verdict == "cannot tell":
        return f"it cannot be told whether {left} {is_} better or worse than {right}"
    return f"{left} {is_} {verdict} than {right}"


def need(difference: Difference, needed: float, margin: float, *, several: bool = False) -> str:
    """What it would take to tell, for a verdict of "cannot tell".

    Args:
        difference: As tested.
        needed: Patients in the test set by which a difference as large as the margin is found, after correction.
        margin: Largest difference that does not matter.
        several: Whether several test sets are averaged, so that the number is of each.
    """
    if difference.reason:
        return f"There is no test: {difference.reason}."
    each = " in each test set" if several else ""
    if math.isinf(needed):
        return "Seeds differ so much that more test patients alone would not settle it; more seeds would."
    if math.isnan(needed):
        return ""
    if difference.n_groups < FEWEST_TO_PLAN:
        return f"{difference.n_groups} patients are too few to say how many would be needed."
    if needed <= difference.n_groups:
        return (
            f"A difference of {margin:g} would most likely have been found here; what there is lies too near 0 to be "
            f"named and too near ±{margin:g} to be called equivalent."
        )
    return (
        f"To find a difference of {margin:g}, about {count_text(_up(needed))} patients{each} would be needed; here "
        f"{'at least ' if several else ''}{count_text(difference.n_groups)}."
    )


def caveats(difference: Difference, verdict: Verdict, p: float, *, alpha: float) -> list[str]:
    """What a reader must know beside the verdict."""
    told = []
    if difference.single_seed:
        told.append(
            "One seed alone was trained, so that the noise of training is not in the interval: this is about these "
            "trained models, not about the method."
        )
    if difference.seed_freedom == 1:
        told.append(
            "Two seeds of one side alone tell the noise of training: where that is most of the noise, such an interval "
            "holds the truth less often than it says (of simulated ones of 95 %, 86 %)."
        )
    if difference.n_groups < FEW_GROUPS and not difference.reason:
        told.append(f"With {difference.n_groups} patients the interval is rough.")
    if verdict in ("cannot tell", "equivalent") and difference.p <= alpha < p:
        told.append("Alone its interval leaves out 0; among all comparisons of this page that is no proof.")
    return told


def _up(count: float) -> int:
    """Round up to two digits: a number of patients is no more exact than that."""
    size = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return math.ceil(count / size) * size
