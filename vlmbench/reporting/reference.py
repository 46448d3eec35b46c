"""Published numbers beside ours: the difference in points, whether the intervals hold it, and what explains it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlmbench.metrics.bootstrap import intervals
from vlmbench.metrics.frame import profile_values, to_jsonable
from vlmbench.reporting.published import PUBLISHED, Reference, read_references, source_title
from vlmbench.reporting.rows import Estimate, Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study
from vlmbench.reporting.text import ABSENT, MINUS

RESAMPLES = 1000  # as many as the published intervals have
STUDY_SPLIT = ".study"  # what the name of a domain with domain.split=study ends with


@dataclass(frozen=True, slots=True)
class Compared:
    """A published number and the record of ours that answers it.

    Attributes:
        reference: The published number.
        row: Our record.
        estimate: Our metric, a share.
        difference: Ours minus the published, in points, ours rounded as theirs is; None where we have no value.
        notes: What explains a difference, of theirs and of ours.
    """

    reference: Reference
    row: Row
    estimate: Estimate
    difference: float | None
    notes: tuple[str, ...]

    @property
    def examples(self) -> float | None:
        """Test examples of ours behind the number: the closed questions alone where it is of those."""
        closed = self.reference.names["metric"].startswith("closed")
        return self.row.number("counts", "closed") if closed else self.row.number("n", "examples")

    @property
    def inside(self) -> str:
        """Which of the two values lies in the other's interval, in words."""
        if self.estimate.value is None:
            return ABSENT
        theirs, ours = self.reference, self.estimate
        low, high = (None, None) if ours.interval is None else (100 * ours.interval[0], 100 * ours.interval[1])
        held = [
            _holds(theirs.low, theirs.high, round(100 * self.estimate.value, theirs.decimals)),
            _holds(low, high, theirs.value),
        ]
        words = (("ours in theirs", "ours outside theirs"), ("theirs in ours", "theirs outside ours"))
        lacks = ("no interval published", "no interval of ours")
        return ", ".join(
            lack if hold is None else yes if hold else no
            for hold, (yes, no), lack in zip(held, words, lacks, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Beside:
    """All reference numbers, by what became of them."""

    compared: tuple[Compared, ...]
    refused: tuple[Reference, ...]
    absent: tuple[Reference, ...]


def section(study: Study) -> Section | None:
    """The section of the page; none where no reference was asked for."""
    if not study.settings.against:
        return None
    found = beside(study, read_references(study.settings.against))
    notes = list(dict.fromkeys(note for item in found.compared for note in item.notes))
    differences: dict[str, list[float]] = defaultdict(list)
    for item in found.compared:
        if item.difference is not None:
            differences[source_title(item.reference.names["source"])].append(item.difference)
    missing: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for gap in found.absent:
        missing[(source_title(gap.names["source"]), gap.names["model"], gap.names["finetune"])].append(gap.domain)
    body = rendered(
        "reference.html.j2",
        found=found,
        of="of the study" if study.settings.against == PUBLISHED else f"in {study.settings.against}",
        n=len(found.compared) + len(found.refused) + len(found.absent),
        numbers={note: number for number, note in enumerate(notes, 1)},
        differences=differences,
        within=sum("outside" not in item.inside and " in " in item.inside for item in found.compared),
        missing=missing,
        source_title=source_title,
        percent=percent,
        points=points,
    )
    return Section("reference", "Beside published numbers", body)


def beside(study: Study, references: Sequence[Reference]) -> Beside:
    """Match records with reference numbers: by task, model, method, scope where it matters, and domain.

    Several records may answer one number (seeds, recipes); each is shown. A refused number is matched with nothing.
    """
    ours: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in study.rows:
        if row.kind == "cell":
            # Parts of the training data, corruptions and other label rules have other names, and nothing published.
            ours[(row.task, row.model, row.finetune, row.domain.removesuffix(STUDY_SPLIT))].append(row)
    profiled = Profiled(study)
    compared: list[Compared] = []
    absent: list[Reference] = []
    for item in references:
        if item.refused:
            continue
        key = (item.names["task"], item.model, item.finetune, item.domain)
        # A record that names no scope may be of the published one.
        matches = [row for row in ours.get(key, ()) if item.scope in ("", row.scope) or not row.scope]
        compared += [_compared(item, row, profiled) for row in matches]
        if not matches:
            absent.append(item)
    return Beside(tuple(compared), tuple(item for item in references if item.refused), tuple(absent))


class Profiled:
    """Metrics of the published conventions, computed from the predictions of the cells that are asked for.

    Args:
        study: Where the predictions are.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.known: dict[tuple[str, str], Mapping[str, Any] | None] = {}

    def estimate(self, row: Row, profile: str, metric: str) -> Estimate:
        """One metric of a done cell, with its interval."""
        if (row.path, profile) not in self.known:
            self.known[(row.path, profile)] = self._score(row, profile)
        scored = self.known[(row.path, profile)]
        if scored is None:
            return Estimate(None, reason=self.study.lacking.get(row.path, "no predictions"))
        if metric not in scored:
            return Estimate(None, reason=f"no question here that {metric} applies to")
        found = to_jsonable(scored[metric])
        return Estimate(found["value"], found["low"], found["high"], reason=found.get("reason", ""))

    def _score(self, row: Row, profile: str) -> Mapping[str, Any] | None:
        frame = self.study.predictions(row)
        if frame is None:
            return None
        settings = self.study.settings
        return intervals(
            profile_values(frame, profile),
            frame["group"].to_numpy(),
            n_resamples=min(settings.resamples, RESAMPLES),
            confidence=settings.confidence,
        )["metrics"]


def _compared(reference: Reference, row: Row, profiled: Profiled) -> Compared:
    estimate = _estimate(reference, row, profiled)
    difference = None
    if estimate.value is not None:
        rounded = round(100 * estimate.value, reference.decimals)
        difference = round(rounded - reference.value, reference.decimals) + 0.0  # no negative zero
    found = Compared(reference, row, estimate, difference, reference.notes)
    return replace(found, notes=(*reference.notes, *_own_notes(found)))


def _estimate(reference: Reference, row: Row, profiled: Profiled) -> Estimate:
    if reference.needs:
        return Estimate(None, reason=f"needs {reference.needs}")
    if not row.done:
        return Estimate(None, reason=row.primary.reason)
    if reference.profile:
        return profiled.estimate(row, reference.profile, reference.metric)
    return row.estimates.get(reference.metric, Estimate(None, reason=f"the record holds no {reference.metric}"))


def _own_notes(item: Compared) -> Iterable[str]:
    reference, row = item.reference, item.row
    split = row.text("config", "domain", "split")
    if split and split != "study":
        yield f"ours was tested on another split (domain.split={split}, published: domain.split=study)"
    if reference.examples and item.examples and item.examples != reference.examples:
        yield "another number of test examples"
    if reference.names["exposure"] and row.exposure != reference.names["exposure"]:
        yield f"exposure: published {reference.names['exposure']}, ours {row.exposure}"
    if row.text("bootstrap", "unit") == "group":
        yield "our intervals resample patients (or images), the published ones single items"


def _holds(low: float | None, high: float | None, value: float) -> bool | None:
    return None if low is None or high is None else low <= value <= high


def percent(share: float | None, decimals: int) -> str:
    """A share as a percentage without its sign."""
    return ABSENT if share is None else f"{100 * share:.{decimals}f}"


def points(difference: float | None, decimals: int) -> str:
    """A difference in points with its sign; 0 has none."""
    if difference is None:
        return ABSENT
    return (f"{difference:+.{decimals}f}" if difference else f"{0:.{decimals}f}").replace("-", MINUS)
