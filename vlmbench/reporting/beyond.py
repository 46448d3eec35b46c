"""What a question's differences say of domains like these: a mean with the spread between domains in its interval."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import pandas as pd

from vlmbench.metrics.comparison import Contrast, assess, average
from vlmbench.metrics.mixed import Summary, over_domains
from vlmbench.reporting.findings import Findings, Tested
from vlmbench.reporting.questions import Question
from vlmbench.reporting.telling import where
from vlmbench.reporting.text import interval_text, name_text
from vlmbench.reporting.wording import signed

# Of two domains the interval of their mean, with one degree of freedom, holds everything.
FEWEST = 3


@dataclass(frozen=True, slots=True)
class Beyond:
    """A summary that takes the domains as a sample.

    Attributes:
        question: Of which question.
        task: Of which task.
        metric: In whose unit.
        summary: Mean and interval.
        given_up: The mixed model, where it could not be used and another summary stands in.
    """

    question: Question
    task: str
    metric: str
    summary: Summary
    given_up: Summary | None


def beyond(findings: Findings) -> list[Beyond]:
    """Summarise every question that was tested on enough domains."""
    groups: dict[tuple[str, str, str], list[Tested]] = defaultdict(list)
    for one, contrast in findings.contrasts:
        if not math.isnan(one.difference.se):
            groups[(one.question.key, one.task, one.metric)].append((one, contrast))
    made = []
    for members in groups.values():
        first = members[0][0]
        by_domain: dict[str, list[Contrast]] = defaultdict(list)
        for one, contrast in members:
            by_domain[where(one.matches[0])].append(contrast)
        settings = findings.settings
        assessed = [assess(average(some), margin=settings.margin) for some in by_domain.values()]
        tested = [each for each in assessed if not math.isnan(each.se)]
        if len(tested) < FEWEST:
            continue
        summary, given_up = over_domains(
            _cells(members, findings),
            [each.estimate for each in tested],
            [each.se**2 for each in tested],
            confidence=settings.confidence,
        )
        made.append(Beyond(first.question, first.task, first.metric, summary, given_up))
    return made


def beyond_text(one: Beyond) -> str:
    """The summary as a sentence."""
    summary = one.summary
    if math.isnan(summary.estimate):
        return f"How it would be on another domain cannot be said: {'; '.join(summary.warnings)}."
    apart = (
        "how it varies from one domain to the next cannot be told from noise"
        if math.isnan(summary.between)
        else f"from one domain to the next it varies with a standard deviation of {summary.between:.3f}"
    )
    sentence = (
        f"Were these {summary.n_domains} domains a random sample of such domains, the mean difference over all of them "
        f"would be {name_text(one.metric)} {signed(summary.estimate)} {interval_text(summary.low, summary.high)}; "
        f"{apart} ({summary.method})."
    )
    if one.given_up is not None:
        sentence += f" A mixed model was not used: {one.given_up.warnings[0]}."
    return sentence


def _cells(members: list[Tested], findings: Findings) -> pd.DataFrame:
    rows = []
    for one, _ in members:
        match = one.matches[0]
        pair = f"{match.place.generalist}|{match.place.specialist}"
        for role, side in (("generalist", match.left), ("specialist", match.right)):
            for row in side.rows:
                value = findings.evidence.drawn[row.path].point
                rows.append({"value": value, "role": role, "domain": where(match), "pair": pair})
    return pd.DataFrame(rows)
