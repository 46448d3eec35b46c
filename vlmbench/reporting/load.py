"""Rows from records: finds every `record.json`, reads it defensively, and says what could not be read and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlmbench.errors import UserError
from vlmbench.reporting.rows import Estimate, Row, as_number, dig

SCHEMA = 1
KINDS = ("cell", "transfer")
TRIAL = "trial"  # of a search, on validation: no result
STATUSES = ("done", "failed")


class ReportError(UserError):
    """A report cannot be written; the message says what is missing, where, and what to do."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A `record.json` that is not one of ours: where it lies and what is wrong with it."""

    path: str
    reason: str


def load_rows(records_dir: Path) -> tuple[list[Row], list[Unreadable]]:
    """Read every `record.json` under a directory, in the order of their paths; the trials of a search are left out.

    Raises:
        ReportError: The directory does not exist or holds no `record.json` of a result.
    """
    records_dir = Path(records_dir)
    if not records_dir.is_dir():
        raise ReportError(f"no directory {records_dir}; name the directory that a run or a grid wrote its records to")
    paths = sorted(records_dir.rglob("record.json"))
    if not paths:
        raise ReportError(f"no record.json under {records_dir}; run a cell or a grid first, or name its directory")
    rows: list[Row] = []
    unreadable: list[Unreadable] = []
    for path in paths:
        name = path.relative_to(records_dir).as_posix()
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(record, dict) and record.get("kind") == TRIAL and record.get("schema") == SCHEMA:
                continue
            rows.append(row_from_record(record, name))
        except OSError as error:
            unreadable.append(Unreadable(name, f"cannot be opened: {error.strerror or error}"))
        except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
            unreadable.append(Unreadable(name, f"{error}"))
    if not rows and not unreadable:
        raise ReportError(f"under {records_dir} are trials of a search alone, no results; let it end first")
    return _fill_gaps(rows), unreadable


def row_from_record(record: Any, path: str = "") -> Row:
    """Make a row of one parsed record.

    Raises:
        ValueError: It is no record of schema 1; the message says why.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"holds a JSON {type(record).__name__}, not an object")
    if record.get("schema") != SCHEMA:
        raise ValueError(f"schema is {record.get('schema')!r}, this version reads {SCHEMA}")
    kind, status = record.get("kind", "cell"), record.get("status")
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, not one of {', '.join(KINDS)}")
    if status not in STATUSES:
        raise ValueError(f"status is {status!r}, not one of {', '.join(STATUSES)}")
    cell = {key: dig(record, "cell", key) for key in ("model", "task", "finetune", "domain", "scope")}
    names = {key: value if isinstance(value, str) else "" for key, value in cell.items()}
    if status == "done":
        missing = [key for key in ("model", "task", "finetune", "domain") if not names[key]]
        if missing:
            raise ValueError(f"done, but its cell lacks {', '.join(missing)}")
        if not isinstance(record.get("metrics"), Mapping):
            raise ValueError("done, but holds no metrics")
    seed = as_number(dig(record, "cell", "seed"))
    top = {
        key: value if isinstance(value := record.get(key), str) else ""
        for key in ("identity", "trained_on", "role", "pair", "family", "modality", "exposure", "primary_metric")
    }
    metrics = record["metrics"] if status == "done" else {}
    return Row(
        path=path,
        record=record,
        identity=top["identity"],
        kind=kind,
        status=status,
        model=names["model"],
        task=names["task"],
        finetune=names["finetune"],
        scope=names["scope"],
        domain=names["domain"],
        seed=None if seed is None else int(seed),
        trained_on=top["trained_on"] if kind == "transfer" else "",
        role=top["role"],
        pair=top["pair"],
        family=top["family"],
        modality=top["modality"],
        exposure=top["exposure"] if top["exposure"] in ("id", "ood") else "unknown",
        primary_metric=top["primary_metric"],
        estimates={name: _estimate(entry) for name, entry in metrics.items()},
    )


def _estimate(entry: Any) -> Estimate:
    if not isinstance(entry, Mapping):
        value = as_number(entry)
        return Estimate(value, reason="" if value is not None else "the record holds no number here")
    value = as_number(entry.get("value"))
    resamples, undefined = as_number(entry.get("n_resamples")), as_number(entry.get("undefined"))
    low, high = as_number(entry.get("low")), as_number(entry.get("high"))
    told = entry.get("reason")
    reason = told if isinstance(told, str) and (value is None or low is None or high is None) else ""
    if value is None and not reason:
        reason = "undefined on this test set (the record holds null)"
    return Estimate(
        value=value,
        low=low,
        high=high,
        n_resamples=None if resamples is None else int(resamples),
        undefined=None if undefined is None else int(undefined),
        reason=reason,
    )


def _fill_gaps(rows: Sequence[Row]) -> list[Row]:
    """Give failed records what other records say of the same model, domain and task, so that they sort beside them."""

    def known(name: str, *by: str) -> dict[tuple[str, ...], str]:
        facts: dict[tuple[str, ...], str] = {}
        for row in rows:
            if row.done and getattr(row, name):
                facts.setdefault(tuple(getattr(row, key) for key in by), getattr(row, name))
        return facts

    sources: Iterable[tuple[str, tuple[str, ...]]] = (
        ("role", ("model",)),
        ("pair", ("model",)),
        ("family", ("model",)),
        ("modality", ("domain",)),
        ("primary_metric", ("task",)),
    )
    tables = [(name, by, known(name, *by)) for name, by in sources]
    exposures = known("exposure", "model", "domain")
    filled = []
    for row in rows:
        if not row.done:
            gaps: dict[str, Any] = {
                n: facts.get(tuple(getattr(row, k) for k in by), "") for n, by, facts in tables if not getattr(row, n)
            }
            if row.exposure == "unknown":
                gaps["exposure"] = exposures.get((row.model, row.domain), "unknown")
            row = replace(row, **gaps)
        filled.append(row)
    return filled
