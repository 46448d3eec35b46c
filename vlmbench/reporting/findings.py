"""Tested answers to the research questions: by pair and domain, by pair, and over all pairs."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlmbench.metrics.comparison import Contrast, Difference, assess, average, holm
from vlmbench.reporting.evidence import Evidence, gather
from vlmbench.reporting.ordering import TASKS, rank
from vlmbench.reporting.questions import QUESTIONS, Match, Place, Question, Refused, ask
from vlmbench.reporting.study import Settings, Study
from vlmbench.reporting.wording import Verdict, judge

MEMO = "findings"


@dataclass(frozen=True, slots=True)
class Finding:
    """One tested difference, generalist minus specialist.

    Attributes:
        question: What it answers.
        task: `diagnosis` or `vqa`.
        metric: In whose unit it is.
        matches: What it is of: one, or several whose mean it is.
        level: `domain` (one match), `pair` (mean over its domains), `question` (mean over pairs and domains), or
            `method` (one match that no validation chose: never a verdict).
        difference: As tested alone.
        p: Corrected by Holm over all verdicts of the task; NaN for a method.
        p_equivalent: Likewise, of equivalence.
        needed: Groups by which a difference as large as the margin would be found after correction.
        verdict: Of the generalist.
    """

    question: Question
    task: str
    metric: str
    matches: tuple[Match, ...]
    level: str
    difference: Difference
    p: float = math.nan
    p_equivalent: float = math.nan
    needed: float = math.nan
    verdict: Verdict = "cannot tell"

    @property
    def place(self) -> Place:
        """Of the first match."""
        return self.matches[0].place

    @property
    def cells(self) -> tuple[str, ...]:
        """Identities of the records behind it."""
        found = (row.identity for match in self.matches for side in (match.left, match.right) for row in side.rows)
        return tuple(dict.fromkeys(found))


Tested = tuple[Finding, Contrast]


@dataclass(frozen=True, slots=True)
class Findings:
    """What the comparisons of a study say.

    Attributes:
        verdicts: Those of all levels but `method`, in the order of the page.
        methods: Each method's gap.
        contrasts: Of each finding of level `domain`, its draws.
        evidence: The draws behind all of it.
        refused: What is not compared.
        settings: What the reader asked for.
        tests: Number of verdicts of each task that are corrected together.
    """

    verdicts: tuple[Finding, ...]
    methods: tuple[Finding, ...]
    contrasts: tuple[Tested, ...]
    evidence: Evidence
    refused: tuple[Refused, ...]
    settings: Settings
    tests: dict[str, int]

    def of(self, question: Question, task: str, *levels: str) -> list[Finding]:
        """Verdicts of a question at some levels."""
        return [one for one in self.verdicts if one.question is question and one.task == task and one.level in levels]

    def overall(self, question: Question, task: str) -> list[Finding]:
        """The broadest verdicts of a question: of each metric its mean, or the comparisons that have none."""
        means = self.of(question, task, "question")
        averaged = {one.metric for one in means}
        return means + [one for one in self.of(question, task, "domain") if one.metric not in averaged]


def find(study: Study) -> Findings:
    """Test everything that the questions compare; worked out once for a study."""
    if MEMO not in study.memo:
        study.memo[MEMO] = _find(study)
    return study.memo[MEMO]


def _find(study: Study) -> Findings:
    matches, refused = ask(study.rows)
    rows = [row for match in matches for side in (match.left, match.right) for row in side.rows]
    evidence = Evidence()
    gather(study, rows, evidence)
    settings = study.settings
    single: list[Tested] = []
    methods: list[Finding] = []
    for match in matches:
        contrast = evidence.contrast(match.left, match.right)
        if isinstance(contrast, str):
            if match.chosen:
                refused.append(Refused(match.place, "the verdict", contrast))
            continue
        made = _finding((match,), "domain" if match.chosen else "method", contrast, settings)
        if match.chosen:
            single.append((made, contrast))
        else:
            methods.append(made)
    verdicts = _corrected([*single, *_averages(single, settings)], settings)
    counts: dict[str, int] = defaultdict(int)
    for one in verdicts:
        counts[one.task] += not math.isnan(one.difference.p)
    return Findings(
        verdicts=tuple(sorted(verdicts, key=_order)),
        methods=tuple(sorted(methods, key=_order)),
        contrasts=tuple(single),
        evidence=evidence,
        refused=tuple(dict.fromkeys(refused)),
        settings=settings,
        tests=dict(counts),
    )


def _finding(matches: tuple[Match, ...], level: str, contrast: Contrast, settings: Settings) -> Finding:
    place = matches[0].place
    tested = assess(contrast, margin=settings.margin, confidence=settings.confidence, power=settings.power)
    return Finding(place.question, place.task, matches[0].metric, matches, level, tested)


def _averages(single: Sequence[Tested], settings: Settings) -> Iterator[Tested]:
    """Means over the domains of a pair and over everything, where they are of more than one comparison."""
    for level in ("pair", "question"):
        for members in _grouped(single, level):
            mean = average([contrast for _, contrast in members])
            yield _finding(tuple(one.matches[0] for one, _ in members), level, mean, settings), mean


def _grouped(single: Sequence[Tested], level: str) -> list[list[Tested]]:
    """Comparisons to average, without those that have no test of their own."""
    groups: dict[tuple[str, ...], list[Tested]] = defaultdict(list)
    pairs: dict[tuple[str, ...], set[tuple[str, str]]] = defaultdict(set)
    for one, contrast in single:
        if contrast.n_groups < 2 or math.isnan(contrast.estimate):
            continue
        key = (one.question.key, one.task, one.metric)
        pair = (one.place.generalist, one.place.specialist)
        pairs[key].add(pair)
        groups[(*key, *pair) if level == "pair" else key].append((one, contrast))
    if level == "pair":  # of one pair alone the mean over everything is its own: no test is made twice
        groups = {key: members for key, members in groups.items() if len(pairs[key[:3]]) > 1}
    return [members for members in groups.values() if len(members) > 1]


def _corrected(found: Sequence[Tested], settings: Settings) -> list[Finding]:
    """Correct all verdicts of a task together, and judge."""
    out = []
    alpha = 1 - settings.confidence
    for task in dict.fromkeys(one.task for one, _ in found):
        family = [(one, contrast) for one, contrast in found if one.task == task]
        p_values = holm([one.difference.p for one, _ in family])
        equivalents = holm([one.difference.p_equivalent for one, _ in family])
        # Bonferroni's level: what is found at it is found whatever the other tests give.
        strict = 1 - alpha / max(1, sum(not math.isnan(one.difference.p) for one, _ in family))
        for (one, contrast), p, equivalent in zip(family, p_values, equivalents, strict=True):
            needed = assess(contrast, margin=settings.margin, confidence=strict, power=settings.power).groups_needed
            out.append(
                dataclasses.replace(
                    one,
                    p=float(p),
                    p_equivalent=float(equivalent),
                    needed=needed,
                    verdict=judge(one.difference, float(p), float(equivalent), alpha=alpha),
                )
            )
    return out


def _order(one: Finding) -> tuple[object, ...]:
    levels = ("question", "pair", "domain", "method")
    place = one.place
    names = () if one.level == "question" else (place.generalist, place.specialist)
    return (
        rank(one.task, TASKS),
        QUESTIONS.index(one.question),
        one.metric,
        names,
        levels.index(one.level),
        place.domain,
        place.trained_on,
        one.matches[0].left.method,
        one.matches[0].right.method,
    )
