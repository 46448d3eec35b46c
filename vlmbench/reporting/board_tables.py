"""The report's heat map, gaps and costs as flat tables, which W&B's charts are drawn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmbench.reporting.findings import find
from vlmbench.reporting.grids import cell_matrices
from vlmbench.reporting.load import load_rows
from vlmbench.reporting.ordering import newest
from vlmbench.reporting.rows import Row
from vlmbench.reporting.study import Settings, Study
from vlmbench.reporting.tables import PARTS
from vlmbench.reporting.text import method_text
from vlmbench.reporting.verdicts import verdict_rows

HEAT = (
    *("task", "metric", "group", "line", "model", "role", "method", "scope", "variant", "domain", "modality"),
    *("exposure", "state", "value", "low", "high", "seeds", "failed", "note"),
)
GAPS = (
    *("task", "question", "level", "generalist", "specialist", "domain", "trained_on", "label", "metric"),
    *("method_generalist", "method_specialist", "difference", "low", "high", "p_corrected", "verdict", "sentence"),
)
COSTS = (
    *("task", "metric", "domain", "model", "role", "method", "scope", "seed", "value", "low", "high"),
    *("seconds", "trainable_parameters", "saved_bytes", "front"),
)


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, and a tuple of values a row; None where there is no value."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def read_study(records: Path, settings: Settings) -> Study:
    """Read the records under a directory as the report does.

    Raises:
        ReportError: There is no such directory, or no record in it.
    """
    rows, unreadable = load_rows(records)
    current, older = newest(rows)
    return Study(records, current, older, unreadable, settings)


def tables(study: Study) -> dict[str, Table]:
    """Return `heat_map`, `gaps` and `costs` of a study; one that has nothing is left out."""
    verdicts = ({**row, "label": _label(row)} for row in verdict_rows(find(study)) if row["verdict"])
    made = {
        "heat_map": _table(HEAT, _heat(study.rows)),
        "gaps": _table(GAPS, verdicts),
        "costs": _table(COSTS, _costs(study.rows)),
    }
    return {name: table for name, table in made.items() if table.rows}


def _table(columns: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> Table:
    return Table(columns, tuple(tuple(row[name] for name in columns) for row in rows))


def _heat(rows: Sequence[Row]) -> Iterable[dict[str, Any]]:
    matrices = cell_matrices(rows)
    for matrix in matrices:
        for group, lines in matrix.groups:
            for line in lines:
                method = method_text(line.finetune, line.scope, line.variant)
                told = method_text(line.model, method, matrix.metric if len(matrices) > 1 else "")
                for (domain, modality), tile in zip(matrix.domains, line.tiles, strict=True):
                    yield {
                        **{"task": matrix.task, "metric": matrix.metric, "group": group, "line": told},
                        **{"model": line.model, "role": line.role, "method": line.finetune, "scope": line.scope},
                        **{"variant": line.variant, "domain": domain, "modality": modality},
                        **{"exposure": tile.exposure, "state": tile.state, "value": tile.value},
                        **{"low": tile.low, "high": tile.high, "seeds": tile.seeds, "failed": tile.failed},
                        "note": tile.note,
                    }


def _label(row: dict[str, Any]) -> str:
    """What a gap is of, in a few words."""
    pair = f"{row['generalist']} − {row['specialist']}" if row["generalist"] else "all pairs"
    place = row["domain"] or "mean"
    return f"{row['question']}: {pair}, {place}" + (f" (tuned on {row['trained_on']})" if row["trained_on"] else "")


def _costs(rows: Sequence[Row]) -> Iterable[dict[str, Any]]:
    found: dict[tuple[str, str, str], list[tuple[Row, float, float]]] = defaultdict(list)
    for row in rows:
        seconds, value = row.number("cost", "seconds", "total"), row.primary.value
        if row.kind == "cell" and seconds is not None and value is not None:
            found[(row.task, row.primary_metric, row.domain)].append((row, seconds, value))
    for (task, metric, domain), members in sorted(found.items()):
        for row, seconds, value in members:
            beaten = any(
                other <= seconds and better >= value and (other, better) != (seconds, value)
                for _, other, better in members
            )
            counts = [row.number("cost", "parameters", part, "trainable") for part in PARTS]
            known = [count for count in counts if count is not None]
            yield {
                **{"task": task, "metric": metric, "domain": domain, "model": row.model, "role": row.role},
                **{"method": row.finetune, "scope": row.scope, "seed": row.seed, "value": value},
                **{"low": row.primary.low, "high": row.primary.high, "seconds": seconds},
                **{"trainable_parameters": sum(known) if known else None},
                **{"saved_bytes": row.number("cost", "saved_bytes"), "front": not beaten},
            }
