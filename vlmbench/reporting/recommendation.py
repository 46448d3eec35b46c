"""Which model and which method for a budget: chosen on validation, with what it reaches on the test set.

Because validation chooses and the test set does not, the expected value is no best of many: it is not too good.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from vlmbench.metrics.comparison import Contrast, Difference, assess, average, within_unit
from vlmbench.reporting.candidates import Candidate, candidates, lightest
from vlmbench.reporting.evidence import Evidence, gather
from vlmbench.reporting.study import Settings, Study

Key = tuple[str, str, str]
MAX_OPTIONS = 6


@dataclass(frozen=True, slots=True)
class Option:
    """Something to take.

    Attributes:
        role: `best`, `second` or `cheaper`; `unranked` where validation does not compare it with the others.
        parts: The candidate on each domain.
        expected: Its metric on the test sets, tested against nothing; or why it is not known.
        loss: What the best is ahead by, on the test sets; or why it is not known; None for the best itself.
    """

    role: str
    parts: tuple[Candidate, ...]
    expected: Difference | str
    loss: Difference | str | None = None

    @property
    def label(self) -> str:
        """Its name for readers."""
        return self.parts[0].label

    def largest(self, name: str) -> float | None:
        """The largest `hours`, `gib` or `labelled` of its cells."""
        values = [getattr(part, name) for part in self.parts]
        return None if None in values else max(values)


@dataclass(frozen=True, slots=True)
class Advice:
    """What to take for a task on one domain, or on every domain of the study.

    Attributes:
        task: `diagnosis` or `vqa`.
        domains: Where.
        metric: Primary metric.
        fitting: Number of candidates within the budget.
        ranked: Of these, that validation compares.
        measured: Number of candidates.
        options: The best first, or what cannot be ranked.
        note: Why nothing is recommended; empty where something is.
        misfits: Why candidates exceed the budget: label to reason.
    """

    task: str
    domains: tuple[str, ...]
    metric: str
    fitting: int
    ranked: int
    measured: int
    options: tuple[Option, ...] = ()
    note: str = ""
    misfits: dict[str, str] = field(default_factory=dict)


def recommend(study: Study, evidence: Evidence) -> list[Advice]:
    """Recommend for every task: on all of its domains together, then on each."""
    places: dict[tuple[str, str], dict[str, list[Candidate]]] = defaultdict(lambda: defaultdict(list))
    for one in candidates(study.rows):
        places[(one.task, one.metric)][one.domain].append(one)
    advice = []
    for (task, metric), domains in places.items():
        if len(domains) > 1:
            advice.append(_advise(study, evidence, task, metric, domains))
        advice += [_advise(study, evidence, task, metric, {name: found}) for name, found in domains.items()]
    return advice


def _advise(study: Study, evidence: Evidence, task: str, metric: str, domains: dict[str, list[Candidate]]) -> Advice:
    settings = study.settings
    measured = _common(list(domains.values()))
    # First what fits, then the best recipe of it: one that is better on validation may exceed the budget.
    fits = _common([[one for one in found if not one.misfit(settings)] for found in domains.values()])
    held = {parts[0].key for parts in fits}
    misfits = {
        parts[0].label: next(filter(None, (part.misfit(settings) for part in parts)), "no recipe fits on every domain")
        for parts in measured
        if parts[0].key not in held
    }
    chosen, note, ranked = _choose(fits, task)
    if not measured:
        note = "no model was run with the same method on all of these domains"
    elif not fits:
        note = "nothing that was measured fits the budget"
    gather(study, [row for _, parts in chosen for part in parts for row in part.side.rows], evidence)
    best = chosen[0][1] if chosen and chosen[0][0] == "best" else None
    options = tuple(
        Option(
            role,
            parts,
            _within(_tested([evidence.level(part.side) for part in parts], settings)),
            None
            if best is None or role == "best"
            else _tested(
                [evidence.contrast(top.side, part.side) for top, part in zip(best, parts, strict=True)], settings
            ),
        )
        for role, parts in chosen
    )
    return Advice(task, tuple(domains), metric, len(fits), ranked, len(measured), options, note, misfits)


def _common(domains: Sequence[Sequence[Candidate]]) -> list[tuple[Candidate, ...]]:
    """What was measured on every domain; of several recipes of one, the best on validation.

    Losses and scores do not compare: those by the same metric as most of the domain's candidates come first.
    """
    tables: list[dict[Key, Candidate]] = []
    for found in domains:
        usual = Counter(one.selected_by for one in found if one.selected_by).most_common(1)
        table: dict[Key, Candidate] = {}
        for one in sorted(found, key=lambda each: ([each.selected_by] == [name for name, _ in usual], each.rank)):
            table[one.key] = one
        tables.append(table)
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    return [tuple(table[key] for table in tables) for key in shared]


def _choose(
    fits: Sequence[tuple[Candidate, ...]], task: str
) -> tuple[list[tuple[str, tuple[Candidate, ...]]], str, int]:
    """The best, the second and the next cheaper by validation, or what cannot be ranked, why, and how many are."""
    named = [parts for parts in fits if all(part.selected_by for part in parts)]
    if not named:
        lightly = sorted(fits, key=lambda parts: lightest(parts[0]))[:MAX_OPTIONS]
        return [("unranked", parts) for parts in lightly], "no validation value ranks what fits the budget", 0
    usual, _ = Counter(tuple(part.selected_by for part in parts) for parts in named).most_common(1)[0]
    ranked = [parts for parts in named if tuple(part.selected_by for part in parts) == usual]
    ranked.sort(key=lambda parts: (-_rank(parts), lightest(parts[0])))
    models = dict.fromkeys(parts[0].model for parts in ranked)
    if task == "vqa" and len(models) > 1 and any(metric.endswith("loss") for metric in usual):
        best_of = [next(parts for parts in ranked if parts[0].model == model) for model in models]
        told = "validation losses of models with other tokens are not comparable: this is the best method of each model"
        return [("unranked", parts) for parts in best_of[:MAX_OPTIONS]], told, 0
    best, *others = ranked
    chosen = [("best", best)] + [("second", parts) for parts in others[:1]]
    price = _hours(best)
    cheaper = [parts for parts in others if price is not None and (_hours(parts) or price) < price]
    if cheaper and cheaper[0] is not others[0]:
        chosen.append(("cheaper", cheaper[0]))
    return chosen, "", len(ranked)


def _rank(parts: Sequence[Candidate]) -> float:
    return statistics.fmean(part.rank for part in parts)


def _hours(parts: Sequence[Candidate]) -> float | None:
    hours = [part.hours for part in parts if part.hours is not None]
    return sum(hours) if len(hours) == len(parts) else None


def _within(level: Difference | str) -> Difference | str:
    return level if isinstance(level, str) else within_unit(level)


def _tested(contrasts: Sequence[Contrast | str], settings: Settings) -> Difference | str:
    known = [one for one in contrasts if not isinstance(one, str)]
    if len(known) < len(contrasts):
        return next(one for one in contrasts if isinstance(one, str))
    mean = average(known) if len(known) > 1 else known[0]
    return assess(mean, margin=settings.margin, confidence=settings.confidence, power=settings.power)
