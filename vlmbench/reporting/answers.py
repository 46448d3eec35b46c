"""The top of the page: the questions answered in words, what to take for a budget, and every verdict in a table."""

from __future__ import annotations

from dataclasses import dataclass

from vlmbench.reporting.advising import advice_text, budget_text, place_text
from vlmbench.reporting.beyond import beyond, beyond_text
from vlmbench.reporting.evidence import resamples
from vlmbench.reporting.findings import Finding, Findings, find
from vlmbench.reporting.questions import QUESTIONS, Question
from vlmbench.reporting.rates import FEWEST, Rates, rates
from vlmbench.reporting.recommendation import Advice, recommend
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study
from vlmbench.reporting.telling import refusals, short_answer, statement
from vlmbench.reporting.text import name_text

OPEN_REFUSALS = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """One question of one task.

    Attributes:
        question: The question.
        sentences: The short answer, in a word and in sentences; says what is missing where nothing was compared.
        beyond: What they say of other domains.
        verdicts: Each verdict with its sentences.
    """

    question: Question
    sentences: tuple[tuple[str, str], ...]
    beyond: tuple[str, ...]
    verdicts: tuple[tuple[Finding, str], ...]


def section(study: Study) -> Section | None:
    """Make the section; None where the records declare no pair and nothing can be recommended."""
    findings = find(study)
    advice = recommend(study, findings.evidence)
    tasks = list(dict.fromkeys([*findings.tests, *(one.place.task for one in findings.refused)]))
    if not tasks and not advice:
        return None
    settings = study.settings
    body = rendered(
        "answers.html.j2",
        answers=[(name_text(task), _answers(task, findings)) for task in tasks],
        rates=_rates(findings),
        advice=[(one, place_text(one), advice_text(one, settings)) for one in advice],
        fewest=FEWEST,
        budget=budget_text(settings),
        cells=_advised_cells,
        refusals=refusals(findings),
        open_refusals=OPEN_REFUSALS,
        settings=settings,
        resamples=resamples(study),
        tests=[(name_text(task), count) for task, count in findings.tests.items()],
    )
    return Section("answers", "The answers", body)


def _answers(task: str, findings: Findings) -> list[Answer]:
    made = []
    summaries = [one for one in beyond(findings) if one.task == task]
    for question in QUESTIONS:
        refused = [one for one in findings.refused if one.place.question is question and one.place.task == task]
        verdicts = findings.of(question, task, "question", "pair", "domain")
        sentences = short_answer(question, task, findings)
        if not sentences and refused:
            sentences = [("Not answered.", f"{question.where}, nothing could be compared; see the reasons below.")]
        if sentences:
            told = tuple((one, statement(one, findings)) for one in verdicts)
            wider = tuple(beyond_text(one) for one in summaries if one.question is question)
            made.append(Answer(question, tuple(sentences), wider, told))
    return made


def _rates(findings: Findings) -> list[tuple[str, list[Rates]]]:
    found = rates(findings)
    return [(name_text(task), [one for one in found if one.task == task]) for task in findings.tests]


def _advised_cells(advice: Advice) -> str:
    """Identities of the cells that an advice is about, for the filters of the page."""
    rows = (row for option in advice.options for part in option.parts for row in part.side.rows)
    return " ".join(dict.fromkeys(row.identity for row in rows))
