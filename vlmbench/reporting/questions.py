"""The research questions, and which cells answer them for which pair on which domain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlmbench.reporting.longtable import seed_text, setting
from vlmbench.reporting.ordering import TASKS, rank
from vlmbench.reporting.pairs import links
from vlmbench.reporting.rows import Row
from vlmbench.reporting.sides import TEST_PARTS, UNTUNED, Method, Side, choose, sides, treatment, unmatched, usable

# What `shown_name` of a domain adds for a part of the train split or for a corruption: questions of other sections.
OTHER_DATA = ("@", "~")


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        key: Its name in tables.
        title: Its heading.
        where: The circumstances, as a sentence begins with them.
        exposure: Of the specialist to the domain.
        tuned: Whether the generalist and the specialist are tuned.
        transfer: Whether the domain is another than the one they were tuned on.
    """

    key: str
    title: str
    where: str
    exposure: tuple[str, ...]
    tuned: tuple[bool, bool]
    transfer: bool = False


_ANY = ("id", "ood", "unknown")
_SEEN = "on modalities that the medical model was made for"
_UNSEEN = "on modalities that the medical model has not seen"
_UNKNOWN = "on modalities that the medical model may or may not have seen"
QUESTIONS = (
    Question("rq1", "RQ1: off the shelf, in domain", f"Off the shelf, {_SEEN}", ("id",), (False, False)),
    Question(
        "rq2_study",
        "RQ2 as the study asks it: common model tuned, medical model not, in domain",
        f"With the common model tuned and the medical one as it comes, {_SEEN}",
        ("id",),
        (True, False),
    ),
    Question("rq2_symmetric", "RQ2: both tuned, in domain", f"With both tuned, {_SEEN}", ("id",), (True, True)),
    Question("rq3", "RQ3: both tuned, out of domain", f"With both tuned, {_UNSEEN}", ("ood",), (True, True)),
    Question(
        "transfer",
        "Transfer: tuned on one domain, tested on another",
        "Tuned on one domain and tested on another",
        _ANY,
        (True, True),
        transfer=True,
    ),
    Question(
        "unknown_shelf",
        "Off the shelf, exposure unknown",
        f"Off the shelf, {_UNKNOWN}",
        ("unknown",),
        (False, False),
    ),
    Question(
        "unknown_tuned",
        "Both tuned, exposure unknown",
        f"With both tuned, {_UNKNOWN}",
        ("unknown",),
        (True, True),
    ),
)


@dataclass(frozen=True, slots=True)
class Place:
    """A pair on a test set.

    Attributes:
        question: What is asked there.
        task: `diagnosis` or `vqa`.
        generalist: Name of the model.
        specialist: Name of the model.
        domain: Tested on.
        trained_on: Of a transfer, tuned on; else empty.
    """

    question: Question
    task: str
    generalist: str
    specialist: str
    domain: str
    trained_on: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """Two sides that may be compared.

    Attributes:
        place: Where.
        metric: Primary metric of all their records.
        left: The generalist's.
        right: The specialist's.
        chosen: Whether validation chose both, so that the question is answered by them; else it is one method's gap.
    """

    place: Place
    metric: str
    left: Side
    right: Side
    chosen: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """What is not compared, and why."""

    place: Place
    what: str
    reason: str


def ask(rows: Sequence[Row]) -> tuple[list[Match], list[Refused]]:
    """Find for every question, declared pair and domain the sides to compare, and what cannot be compared."""
    full = [row for row in rows if row.model and row.domain and not _other_data(row)]
    sources = _sources(full)
    placed: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for row in full:
        placed[(row.model, row.task, row.domain, row.trained_on)].append(row)
    matches: list[Match] = []
    refused: list[Refused] = []
    for general, special in links(rows):
        spots = {key[1:] for key in placed if key[0] in (general, special)}
        for task, domain, home in sorted(spots, key=lambda spot: (rank(spot[0], TASKS), spot[1:])):
            lefts, rights = placed[(general, task, domain, home)], placed[(special, task, domain, home)]
            exposure = next((row.exposure for row in rights), "")
            for question in QUESTIONS:
                if question.transfer == bool(home) and exposure in question.exposure:
                    place = Place(question, task, general, special, domain, home)
                    _ask(place, lefts, rights, sources, matches, refused)
    return matches, refused


def _ask(
    place: Place,
    lefts: Sequence[Row],
    rights: Sequence[Row],
    sources: Mapping[str, Row | None],
    matches: list[Match],
    refused: list[Refused],
) -> None:
    both: list[dict[Method, Side]] = []
    for rows, tuned in zip((lefts, rights), place.question.tuned, strict=True):
        asked = [row for row in rows if (row.finetune != UNTUNED) == tuned]
        for row in asked:
            if reason := usable(row):
                refused.append(Refused(place, _told(row), reason))
        both.append(sides([row for row in asked if not usable(row)], sources))
    left, right = both
    if not left or not right:
        absent = place.specialist if left else place.generalist
        # That nobody tuned anything is no gap of the study.
        untouched = not left and place.question.tuned == (True, False)
        if (left or right) and not untouched:
            kind = "tuned" if place.question.tuned[1 if left else 0] else "untuned"
            refused.append(Refused(place, "every method", f"no {kind} cell of {absent} with a result here"))
        return
    if place.question.tuned == (True, False):
        _uneven(place, left, right, matches, refused)
        return
    for model, own, other, partner in (
        (place.generalist, left, right, place.specialist),
        (place.specialist, right, left, place.generalist),
    ):
        for side in own.values():
            if side.method not in other:
                refused.append(Refused(place, f"{model}, {side.method.label}", unmatched(side, other, partner)))
    shared = [method for method in left if method in right]
    if not shared:
        return
    matches += [Match(place, _metric(left[one]), left[one], right[one], chosen=False) for one in shared]
    _choose(place, {one: left[one] for one in shared}, {one: right[one] for one in shared}, matches, refused)


def _uneven(
    place: Place, left: dict[Method, Side], right: dict[Method, Side], matches: list[Match], refused: list[Refused]
) -> None:
    """Tuned against untuned: the methods differ on purpose, the question and the data must not."""
    (stock, *more) = right.values()
    if more:
        refused.append(Refused(place, place.specialist, f"{UNTUNED} was run with {len(right)} recipes here"))
        return
    wanted = treatment(stock.rows[0], TEST_PARTS)
    same = {}
    for method, side in left.items():
        if treatment(side.rows[0], TEST_PARTS) == wanted:
            same[method] = side
        else:
            told = "it was asked in another way or tested on other data than the untuned specialist"
            refused.append(Refused(place, f"{place.generalist}, {method.label}", told))
    if same:
        matches += [Match(place, _metric(side), side, stock, chosen=False) for side in same.values()]
        _choose(place, same, right, matches, refused)


def _choose(
    place: Place, left: dict[Method, Side], right: dict[Method, Side], matches: list[Match], refused: list[Refused]
) -> None:
    if not place.question.tuned[0] and len(left) > 1:
        told = f"{UNTUNED} was run with {len(left)} recipes here, and no validation chose between them"
        refused.append(Refused(place, "the verdict", told))
        return
    chosen, reason = choose(left) if not place.question.tuned[1] else choose(left, right)
    if reason:
        refused.append(Refused(place, "the verdict", f"{reason}; see the gaps of each method"))
        return
    best = chosen[1] if len(chosen) > 1 else next(iter(right.values()))
    matches.append(Match(place, _metric(best), chosen[0], best, chosen=True))


def _sources(rows: Sequence[Row]) -> dict[str, Row | None]:
    """The cell of each transfer, found by the configuration that both records hash."""

    def key(row: Row, domain: str) -> tuple[object, ...]:
        return (row.model, row.task, row.finetune, row.scope, domain, row.seed, row.text("hashes", "config"))

    cells = {key(row, row.domain): row for row in rows if row.kind == "cell" and row.done}
    return {row.path: cells.get(key(row, row.trained_on)) for row in rows if row.kind == "transfer"}


def _other_data(row: Row) -> bool:
    return any(mark in name for name in (row.domain, row.trained_on) for mark in OTHER_DATA)


def _metric(side: Side) -> str:
    return side.rows[0].primary_metric


def _told(row: Row) -> str:
    return f"{row.model}, {setting(row)}, seed {seed_text(row)}"
