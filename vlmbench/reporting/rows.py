"""What the report knows of one record: the fields it sorts by as attributes, everything else by a path of keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlmbench.config.schema.domain import IN_PLACE

# No metric, duration, size or count here comes near it; what does is a corrupt record, and breaks axes and scales.
LARGEST = 1e15


@dataclass(frozen=True, slots=True)
class Estimate:
    """One metric of one record.

    Attributes:
        value: Point estimate; None where the record holds none.
        low: Lower end of the interval, or None.
        high: Upper end of the interval, or None.
        n_resamples: Bootstrap resamples asked for, or None.
        undefined: Resamples on which the metric was undefined, or None.
        reason: Why `value` is None, or why there is no interval if the record says so; empty otherwise.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n_resamples: int | None = None
    undefined: int | None = None
    reason: str = ""

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Estimate:
        """Take one metric as `metrics.bootstrap.intervals` gives it, where NaN is what a record holds as null."""
        value, low, high = (as_number(found.get(key)) for key in ("value", "low", "high"))
        return cls(value, low, high, found.get("n_resamples"), found.get("undefined"), found.get("reason", ""))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None where either is missing."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Row:
    """One readable record, flat where the report sorts and groups by it.

    Attributes:
        path: Of the `record.json`, relative to the directory that was searched.
        record: The record as read, for everything that is shown but not sorted by.
        seed: None where the record holds none.
        trained_on: The domain a transfer was trained on; empty for a cell.
        role: `generalist`, `specialist`, `baseline`, or empty where it is not recorded.
        exposure: `id`, `ood` or `unknown`.
        primary_metric: Name of the metric the heat map shows; empty where it is not recorded.
        estimates: Every metric by name.
        memo: What is worked out from the record once, by what it is.
    """

    path: str
    record: Mapping[str, Any]
    identity: str
    kind: str
    status: str
    model: str
    task: str
    finetune: str
    scope: str
    domain: str
    seed: int | None
    trained_on: str = ""
    role: str = ""
    pair: str = ""
    family: str = ""
    modality: str = ""
    exposure: str = "unknown"
    primary_metric: str = ""
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def done(self) -> bool:
        """Whether the record holds results."""
        return self.status == "done"

    @property
    def baseline(self) -> str:
        """What a score of others is read against: `blank`, `shuffled`, `random features`; empty for all other rows.

        Blank and shuffled images are no degrees of a corruption, and a network that learned nothing is no candidate.
        """
        shown = self.text("config", "domain", "corruption")
        return shown if shown in IN_PLACE else "random features" if self.role == "baseline" else ""

    @property
    def primary(self) -> Estimate:
        """The primary metric, with the reason in it where there is no value."""
        if not self.done:
            return Estimate(None, reason=f"failed: {self.error_line}")
        return self.estimates.get(self.primary_metric, Estimate(None, reason="the record does not hold this metric"))

    @property
    def error_line(self) -> str:
        """Type and first line of the error of a failed record; empty for a done one."""
        if self.done:
            return ""
        message = self.text("error", "message").strip().splitlines()
        kind = self.text("error", "type") or "error not recorded"
        return f"{kind}: {message[0][:300]}" if message else kind

    def number(self, *keys: str) -> float | None:
        """The finite number at a path of keys, or None."""
        return as_number(dig(self.record, *keys))

    def text(self, *keys: str) -> str:
        """The string at a path of keys, or an empty one."""
        found = dig(self.record, *keys)
        return found if isinstance(found, str) else ""

    def scalar(self, *keys: str) -> str | bool | None:
        """The string or truth value at a path of keys, or None."""
        found = dig(self.record, *keys)
        return found if isinstance(found, str | bool) else None

    def mapping(self, *keys: str) -> Mapping[str, Any]:
        """The mapping at a path of keys, or an empty one."""
        found = dig(self.record, *keys)
        return found if isinstance(found, Mapping) else {}


def dig(record: Any, *keys: str) -> Any:
    """Follow keys through nested mappings; None as soon as one is missing."""
    for key in keys:
        if not isinstance(record, Mapping):
            return None
        record = record.get(key)
    return record


def as_number(value: Any) -> float | None:
    """A float of plausible size, or None for anything else (booleans, strings, NaN and infinities included)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) <= LARGEST else None  # also None for NaN
