"""Sentences of the report's answers: what was compared, on what, what came out, and what a reader must know of it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from vlmbench.reporting.findings import Finding, Findings
from vlmbench.reporting.questions import Match, Question
from vlmbench.reporting.sides import UNTUNED, Side
from vlmbench.reporting.text import count_text, name_text
from vlmbench.reporting.wording import Verdict, caveats, claim, difference_text, need, p_text

COMMON, MEDICAL = "the common models", "the medical models"
_WORDS = {
    "better": "The common model is better.",
    "worse": "The common model is worse.",
    "equivalent": "Equivalent.",
    "cannot tell": "Cannot tell.",
}
_ORDER: tuple[Verdict, ...] = ("better", "worse", "equivalent", "cannot tell")


def where(match: Match) -> str:
    """The test set of a match, with where it was tuned if that is elsewhere."""
    place = match.place
    return f"{place.domain} (tuned on {place.trained_on})" if place.trained_on else place.domain


def methods(match: Match) -> str:
    """How both sides were tuned, said once where it is the same."""
    left, right = match.left.method.label, match.right.method.label
    return left if left == right else f"{left} against {right}"


def seeds(match: Match) -> str:
    """How many seeds both sides have, where a seed decides anything."""
    sides = (match.left, match.right)
    told = [f"{len(side.rows)}" if side.seeded else _seedless(side) for side in sides]
    if told[0] != told[1]:
        return " against ".join(told)
    return f"{told[0]} each" if match.left.seeded else told[0]


def _seedless(side: Side) -> str:
    return "untrained" if side.method.finetune == UNTUNED else "no seed matters"


def correction_text(one: Finding) -> str:
    """The p-value that goes with a verdict, after correction."""
    if math.isnan(one.p):
        return ""
    if one.verdict == "equivalent":
        return f"equivalence {p_text(one.p_equivalent)} after correction"
    return f"{p_text(one.p)} after correction"


def statement(one: Finding, findings: Findings) -> str:
    """A verdict as sentences: claim, difference, interval, test, and what limits it."""
    settings = findings.settings
    several = len(one.matches) > 1
    place = one.place
    if several:
        plural = one.level == "question" and len(_pairs(one)) > 1
        left, right = (COMMON, MEDICAL) if plural else (place.generalist, place.specialist)
        domains = _count(len({where(match) for match in one.matches}), "domain")
        scene = f"On average over {_span(one) if plural else domains}"
    else:
        plural = False
        match = one.matches[0]
        same = match.left.method.label == match.right.method.label
        left, right = (
            model if same else f"{model} ({side.method.label})"
            for model, side in ((place.generalist, match.left), (place.specialist, match.right))
        )
        scene = f"On {where(match)}" + (f", both {match.left.method.label}" if same else "")
    said = claim(left, right, one.verdict, margin=settings.margin, plural=plural)
    numbers = f"{name_text(one.metric)} {difference_text(one.difference)}"
    parts = [f"{scene}, {said}: {numbers}{_then(correction_text(one))}."]
    return " ".join(part for part in [*parts, *_limits(one, findings)] if part)


def short_answer(question: Question, task: str, findings: Findings) -> list[tuple[str, str]]:
    """The answer to a question in a word and in sentences, one a metric; empty where nothing was compared."""
    answers = []
    for one in findings.overall(question, task):
        plural = len(_pairs(one)) > 1
        left, right = (COMMON, MEDICAL) if plural else (one.place.generalist, one.place.specialist)
        said = claim(left, right, one.verdict, margin=findings.settings.margin, plural=plural)
        numbers = f"{name_text(one.metric)} {difference_text(one.difference)}{_then(correction_text(one))}"
        sentence = f"{question.where}, {said} ({numbers}; {_span(one)}, {_patients(one, findings)})."
        parts = [sentence, _spread(one, findings), *_limits(one, findings)]
        word = _WORDS[one.verdict]
        if len(one.matches) > 1 and one.verdict != "cannot tell":
            word = f"On average: {word[0].lower()}{word[1:]}"
        answers.append((word, " ".join(part for part in parts if part)))
    return answers


def _limits(one: Finding, findings: Findings) -> list[str]:
    """What limits a verdict."""
    alpha, margin = 1 - findings.settings.confidence, findings.settings.margin
    told = []
    if one.verdict in ("better", "worse") and one.p_equivalent <= alpha:
        told.append(f"The difference lies within ±{margin:g}, where it counts as too small to matter.")
    if one.verdict == "cannot tell":
        told.append(need(one.difference, one.needed, margin, several=len(one.matches) > 1))
    return told + caveats(one.difference, one.verdict, one.p, alpha=alpha)


def _spread(one: Finding, findings: Findings) -> str:
    """How the verdicts of the single comparisons are spread below their mean: a mean can hide opposites."""
    if len(one.matches) < 2:
        return ""
    singles = [each for each in findings.of(one.question, one.task, "domain") if each.metric == one.metric]
    counts = Counter(each.verdict for each in singles)
    told = ", ".join(f"{verdict} in {counts[verdict]}" for verdict in _ORDER if counts[verdict])
    return f"Of the {len(singles)} single comparisons: {told}."


def _span(one: Finding) -> str:
    pairs, domains = _pairs(one), {where(match) for match in one.matches}
    return f"{_count(len(pairs), 'pair')}, {_count(len(domains), 'domain')}"


def _patients(one: Finding, findings: Findings) -> str:
    drawn = findings.evidence.drawn
    sets = {
        drawn[match.left.rows[0].path].examples: drawn[match.left.rows[0].path].patients for match in one.matches
    }  # a test set that several pairs share is counted once
    return f"{count_text(sum(sets.values()))} patients"


def _pairs(one: Finding) -> set[tuple[str, str]]:
    return {(match.place.generalist, match.place.specialist) for match in one.matches}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _then(text: str) -> str:
    return f", {text}" if text else ""


def refusals(findings: Findings) -> list[tuple[str, str, str, str]]:
    """Pair and domain, what was not compared, why, and for which questions."""
    grouped: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for one in findings.refused:
        place = one.place
        home = f", tuned on {place.trained_on}" if place.trained_on else ""
        spot = f"{place.generalist} and {place.specialist} on {place.domain}{home}"
        grouped[(spot, one.what, one.reason)].append(place.question.title)
    return [(*key, "; ".join(dict.fromkeys(titles))) for key, titles in grouped.items()]
