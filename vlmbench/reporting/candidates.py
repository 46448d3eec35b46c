"""What a reader with a budget could take: every model and method that was measured, with its cost and validation."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vlmbench.reporting.ordering import FINETUNES, TASKS, rank
from vlmbench.reporting.rows import Row
from vlmbench.reporting.sides import UNTUNED, Method, Side, sides, usable, validation
from vlmbench.reporting.study import Settings

_SUBSET = re.compile(r"@[^~]*")
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model tuned one way on some labelled examples of one domain.

    Attributes:
        task: `diagnosis` or `vqa`.
        domain: Name without the part that tells a subset.
        model: Its name.
        subset: That part, such as `@16shots`; empty for all data.
        side: Its records.
        hours: Device hours of one cell, all processes together, mean over seeds; None where not recorded.
        gib: Peak memory, of the device or of the host where none was used, largest over seeds; None likewise.
        labelled: Labelled training examples; 0 where nothing is trained; None likewise.
        selected_by: Validation metric, or empty where validation gave no value.
        validation: Its mean over seeds.
    """

    task: str
    domain: str
    model: str
    subset: str
    side: Side
    hours: float | None
    gib: float | None
    labelled: float | None
    selected_by: str
    validation: float

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is, whichever the domain."""
        return (self.model, self.side.method.label, self.subset)

    @property
    def label(self) -> str:
        """Its name for readers."""
        return f"{self.model}, {self.side.method.label}{f' ({self.subset[1:]})' if self.subset else ''}"

    @property
    def metric(self) -> str:
        """Primary metric of its records."""
        return self.side.rows[0].primary_metric

    @property
    def rank(self) -> float:
        """Validation with the better value higher."""
        return -self.validation if self.selected_by.endswith("loss") else self.validation

    def misfit(self, settings: Settings) -> str:
        """Say why it exceeds the budget; empty where it fits."""
        limits = (
            (self.hours, settings.gpu_hours, "device hours"),
            (self.gib, settings.memory_gib, "GiB of memory"),
            (self.labelled, settings.labelled, "labelled examples"),
        )
        for value, limit, unit in limits:
            if limit is not None and value is None:
                return f"{unit}: not recorded"
            if limit is not None and value is not None and value > limit:
                return f"{unit}: {value:.4g} of {limit:g}"
        return ""


def candidates(rows: Sequence[Row]) -> list[Candidate]:
    """Gather the candidates of all tasks and domains; transfers, corrupted domains and baselines are none."""
    placed: dict[tuple[str, str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.kind == "cell" and not row.baseline and "~" not in row.domain and not usable(row):
            subset = _SUBSET.search(row.domain)
            found = subset.group() if subset else ""
            placed[(row.task, row.domain.replace(found, ""), row.model, found)].append(row)
    return [
        _candidate(*key, side)
        for key, members in sorted(placed.items(), key=lambda item: (rank(item[0][0], TASKS), item[0][1:]))
        for side in sides(members, {}).values()
    ]


def _candidate(task: str, domain: str, model: str, subset: str, side: Side) -> Candidate:
    told = {selection[0] for selection in side.selections if selection}
    value = validation(side)
    ranked = value is not None and len(told) == 1
    tuned = side.method.finetune != UNTUNED
    return Candidate(
        task=task,
        domain=domain,
        model=model,
        subset=subset,
        side=side,
        hours=_mean([_hours(row) for row in side.rows]),
        gib=_largest([_gib(row) for row in side.rows]),
        labelled=_largest([row.number("data", "splits", "train", "examples") for row in side.rows]) if tuned else 0,
        selected_by=told.pop() if ranked else "",
        validation=value if ranked and value is not None else 0.0,
    )


def lightest(one: Candidate) -> tuple[object, ...]:
    """Sort key: from what costs least."""
    method: Method = one.side.method
    return (one.hours is None, one.hours or 0.0, rank(method.finetune, FINETUNES), one.model)


def _hours(row: Row) -> float | None:
    seconds = row.number("cost", "device_seconds")
    seconds = row.number("cost", "seconds", "total") if seconds is None else seconds
    return None if seconds is None else seconds / 3600


def _gib(row: Row) -> float | None:
    peak = row.number("cost", "peak_memory_bytes", "device")
    peak = row.number("cost", "peak_memory_bytes", "host") if peak is None else peak
    return None if peak is None else peak / _GIB


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _largest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if len(known) == len(values) else None
