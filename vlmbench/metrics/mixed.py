"""What holds beyond the domains at hand: differences of many domains summed up with the domains as a random sample.

An average over domains speaks of these domains. A clinician asks of the next one: then the spread between domains is part
of the uncertainty. Two models say how large it is: a linear mixed model of all cells, and a random-effects summary of one
difference a domain, which needs no fit and stands in where the mixed model does not converge.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

#: Variances below this share of the residual's are a fit at the boundary of what a variance can be.
_BOUNDARY = 1e-4


@dataclass(frozen=True, slots=True)
class Summary:
    """A difference over domains, generalist minus specialist, in the metric's unit.

    Attributes:
        method: How it was made.
        estimate: Mean difference; NaN where there is none, as are the following.
        low: Lower end of the interval of the mean.
        high: Upper end.
        se: Standard error.
        df: Degrees of freedom; infinite for the normal distribution.
        p: Two-sided p-value of no mean difference.
        between: Standard deviation of the difference between domains.
        n_domains: Number of domains.
        converged: Whether the numbers are to be used; where not, there are none, and `warnings` say why.
        warnings: What the fit warned of.
    """

    method: str
    estimate: float
    low: float
    high: float
    se: float
    df: float
    p: float
    between: float
    n_domains: int
    converged: bool
    warnings: tuple[str, ...] = ()


def mixed_model(frame: pd.DataFrame, *, confidence: float = 0.95) -> Summary:
    """Fit `value ~ role` with a random intercept and a random effect of role for each domain, by REML.

    Where there are several pairs each has a random intercept too, within its domain. The interval takes Student's t with
    one less degree of freedom than domains: statsmodels' own normal one is too narrow for few of them.

    Args:
        frame: One row a cell: `value`, `role` (`generalist` or `specialist`), `domain`, `pair`.
        confidence: Of the interval.

    Raises:
        ValueError: A column or one of the roles is missing.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM

    if missing := [name for name in ("value", "role", "domain", "pair") if name not in frame]:
        raise ValueError(f"the table of cells lacks the columns {missing}")
    frame = frame.dropna(subset=["value"])
    if set(frame["role"]) != {"generalist", "specialist"}:
        raise ValueError(f"cells of both roles are needed, got {sorted(set(frame['role']))}")
    n_domains = frame["domain"].nunique()
    method = "linear mixed model, REML"
    if n_domains < 3:
        return _without(method, n_domains, f"{n_domains} domains are too few to tell how domains differ")
    # Half apart on either side, so that intercept and difference are not correlated by the coding.
    side = np.where(frame["role"] == "generalist", 0.5, -0.5)
    data = pd.DataFrame({"value": frame["value"], "side": side, "domain": frame["domain"], "pair": frame["pair"]})
    parts = {"domain:difference": "0 + side"}
    if frame["pair"].nunique() > 1:
        parts["pair"] = "0 + C(pair)"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = MixedLM.from_formula("value ~ side", data, groups="domain", re_formula="1", vc_formula=parts).fit(
                reml=True
            )
        except (np.linalg.LinAlgError, ValueError) as error:
            return _without(method, n_domains, f"the fit failed: {error}")
    told = tuple(dict.fromkeys(str(one.message).splitlines()[0] for one in caught))
    se = float(fit.bse["side"])
    if not fit.converged or not math.isfinite(se) or se <= 0:
        return _without(method, n_domains, "the fit did not converge", *told)
    scale = float(fit.scale)
    variances = {"domain": float(fit.cov_re.iloc[0, 0]), **dict(zip(sorted(parts), map(float, fit.vcomp), strict=True))}
    at_zero = [name for name, variance in variances.items() if variance <= _BOUNDARY * scale]
    if at_zero:
        return _without(
            method,
            n_domains,
            f"the fit lies at the boundary: no variance is left for {' and '.join(at_zero)}, so that its standard error "
            "cannot be relied on",
            *told,
        )
    between = math.sqrt(variances["domain:difference"])
    return _summary(method, float(fit.params["side"]), se, n_domains - 1.0, between, n_domains, confidence, told)


def random_effects(differences: ArrayLike, variances: ArrayLike, *, confidence: float = 0.95) -> Summary:
    """Summarise one difference a domain by random effects, with Hartung and Knapp's interval.

    The variance between domains is Paule and Mandel's (1982, J Res NBS 87:377-385). The interval takes Student's t with
    one less degree of freedom than domains and the weighted spread of the differences (Hartung & Knapp 2001, Stat Med
    20:3875-3889), never less than the sampling errors alone give, as it else is by chance with few domains that agree
    (Röver, Knapp & Friede 2015, BMC Med Res Methodol 15:99).

    Args:
        differences: (D,) one a domain; domains with NaN are left out.
        variances: (D,) their squared standard errors, above 0.
        confidence: Of the interval.

    Raises:
        ValueError: Shapes differ, or a variance is not above 0.
    """
    from statsmodels.stats.meta_analysis import combine_effects

    effects, errors = np.asarray(differences, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if effects.shape != errors.shape or effects.ndim != 1:
        raise ValueError(f"one variance a difference is needed, got shapes {effects.shape} and {errors.shape}")
    known = ~np.isnan(effects) & ~np.isnan(errors)
    effects, errors = effects[known], errors[known]
    if (errors <= 0).any():
        raise ValueError("variances must be above 0; a difference that never varies has no place among these")
    method = "random effects over domains, Hartung-Knapp"
    if len(effects) < 2:
        return _without(method, len(effects), "one domain does not tell how domains differ")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = combine_effects(effects, errors, method_re="pm", use_t=True)
    se = max(float(fit.sd_eff_w_re_hksj), float(fit.sd_eff_w_re))
    told = tuple(dict.fromkeys(str(one.message) for one in caught))
    between = math.sqrt(max(0.0, float(fit.tau2)))
    freedom = len(effects) - 1.0
    return _summary(method, float(fit.mean_effect_re), se, freedom, between, len(effects), confidence, told)


def over_domains(
    frame: pd.DataFrame, differences: Sequence[float], variances: Sequence[float], *, confidence: float = 0.95
) -> tuple[Summary, Summary | None]:
    """Return the summary to read, and beside it the mixed model that it stands in for where that gave none.

    Args:
        frame: See `mixed_model`.
        differences: See `random_effects`.
        variances: See `random_effects`.
        confidence: Of the intervals.
    """
    fitted = mixed_model(frame, confidence=confidence)
    if fitted.converged:
        return fitted, None
    return random_effects(differences, variances, confidence=confidence), fitted


def _summary(
    method: str,
    estimate: float,
    se: float,
    df: float,
    between: float,
    n_domains: int,
    confidence: float,
    told: tuple[str, ...],
) -> Summary:
    reach = float(stats.t.ppf((1 + confidence) / 2, df)) * se
    p = 2 * float(stats.t.sf(abs(estimate) / se, df))
    return Summary(method, estimate, estimate - reach, estimate + reach, se, df, p, between, n_domains, True, told)


def _without(method: str, n_domains: int, *why: str) -> Summary:
    nothing = (math.nan,) * 7
    return Summary(method, *nothing, n_domains=n_domains, converged=False, warnings=why)
