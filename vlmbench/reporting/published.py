"""Reference numbers as a table: read, checked, and put into this project's names; which are unusable is data too."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from vlmbench.errors import UserError

PUBLISHED = "published"
COLUMNS = ("source", "task", "model", "role", "finetune", "domain", "metric", "value", "ci_low", "ci_high", "exposure")
NEEDED = ("source", "task", "model", "finetune", "domain", "metric")
TASKS = ("diagnosis", "vqa")
_ASSETS = Path(__file__).resolve().parents[1] / "assets"


class ReferenceFileError(UserError):
    """Reference numbers cannot be read; the message says which file, which line, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One published number.

    Attributes:
        line: In its file, from 1.
        names: Its columns as published.
        model: Name of `model=`; so `finetune`, `domain`.
        scope: Part that was tuned; empty where ours does not matter.
        metric: Name of ours, empty where there is none.
        profile: Convention of scoring; empty for the one of records.
        needs: What a comparison would need and records do not hold; empty for nothing.
        value: In percent; so `low` and `high`, None where no interval is published.
        decimals: With which the value was published.
        examples: Of the published test set, None where it is not stated.
        refused: Why it is no reference value; empty where it is one.
        notes: What explains a difference from it.
    """

    line: int
    names: Mapping[str, str]
    model: str
    finetune: str
    scope: str
    domain: str
    metric: str
    profile: str
    needs: str
    value: float
    low: float | None
    high: float | None
    decimals: int
    examples: int | None
    refused: str
    notes: tuple[str, ...]


def read_references(against: str) -> list[Reference]:
    """Read reference numbers.

    Args:
        against: `published` for those that come with the project, or a CSV file with the columns of `COLUMNS`. Lines
            that begin with # are comments. `value`, `ci_low` and `ci_high` are percentages, from 0 to 100.

    Raises:
        ReferenceFileError: There is no such file, a column is missing or unknown, or a number cannot be one.
    """
    path = _ASSETS / "published.csv" if against == PUBLISHED else Path(against)
    if not path.is_file():
        raise ReferenceFileError(
            f"against={against!r} is no file. Write against={PUBLISHED}, or name a CSV file with the columns "
            f"{', '.join(COLUMNS)}."
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ReferenceFileError(f"{path} cannot be read as UTF-8 text: {error}") from error
    kept = [(number, text) for number, text in enumerate(lines, 1) if text.strip() and not text.startswith("#")]
    if len(kept) < 2:
        raise ReferenceFileError(f"{path} holds no numbers; below the line of its columns each line is one.")
    rows = list(csv.reader(text for _, text in kept))
    header = [name.strip() for name in rows[0]]
    if missing := [name for name in COLUMNS if name not in header]:
        raise ReferenceFileError(
            f"{path}, line {kept[0][0]}: no column {', '.join(missing)}; needed: {', '.join(COLUMNS)}"
        )
    if unknown := [name for name in header if name not in COLUMNS]:
        raise ReferenceFileError(
            f"{path}, line {kept[0][0]}: unknown column {', '.join(unknown)}. Rename or remove it."
        )
    found = []
    for (number, _), cells in zip(kept[1:], rows[1:], strict=True):
        if len(cells) != len(header):
            raise ReferenceFileError(f"{path}, line {number}: {len(cells)} fields where the header has {len(header)}")
        found.append(_reference(path, number, dict(zip(header, map(str.strip, cells), strict=True))))
    _refuse_shares(path, found)
    return found


def _reference(path: Path, line: int, names: dict[str, str]) -> Reference:
    where = f"{path}, line {line}"
    if empty := [name for name in NEEDED if not names[name]]:
        raise ReferenceFileError(f"{where}: {', '.join(empty)} is empty")
    if names["task"] not in TASKS:
        raise ReferenceFileError(f"{where}: task {names['task']!r} is not one of {', '.join(TASKS)}")
    value = _percent(where, "value", names["value"])
    low, high = (_percent(where, end, names[end]) if names[end] else None for end in ("ci_low", "ci_high"))
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise ReferenceFileError(
            f"{where}: ci_low={names['ci_low']!r} and ci_high={names['ci_high']!r} are no interval"
        )
    known = _known()
    rule = next((rule for rule in known["finetunes"] if _holds(rule["when"], names)), {"finetune": names["finetune"]})
    metric = known["metrics"].get(names["metric"], {"metric": names["metric"]})
    refusals = [entry["why"] for entry in known["refused"] if _holds(entry["when"], names)]
    flags = [entry["why"] for entry in known["flagged"] if _holds(entry["when"], names)]
    source = known["sources"].get(names["source"], {})
    counts = known["examples"].get(names["source"], {})
    kind = "closed" if names["metric"].startswith("closed") else names["task"]
    return Reference(
        line=line,
        names=names,
        model=known["models"].get(names["model"], names["model"]),
        finetune=rule["finetune"],
        scope=rule.get("scope", ""),
        domain=names["domain"],
        metric=metric.get("metric", ""),
        profile=metric.get("profile", ""),
        needs=metric.get("needs", ""),
        value=value,
        low=low,
        high=high,
        decimals=len(names["value"].partition(".")[2]),
        examples=counts.get(kind, {}).get(names["domain"]),
        refused="; ".join(refusals),
        notes=(*flags, *([source["why"]] if source else [])),
    )


def source_title(name: str) -> str:
    """Return what a source is, in words; its name where nothing is known of it."""
    return str(_known()["sources"].get(name, {}).get("title", name))


def _percent(where: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ReferenceFileError(f"{where}: {column}={text!r} is no number") from None
    if not 0 <= value <= 100:
        raise ReferenceFileError(f"{where}: {column}={text} is no percentage; write values from 0 to 100")
    return value


def _refuse_shares(path: Path, references: Sequence[Reference]) -> None:
    """Refuse shares where percentages are expected: an AUROC of at most 1, or a metric with nothing above."""
    values: dict[tuple[str, str], list[Reference]] = defaultdict(list)
    for item in references:
        values[(item.names["source"], item.names["metric"])].append(item)
    for (source, metric), items in values.items():
        small = [item for item in items if item.value <= 1]
        if small and (metric == "auroc" or (len(small) == len(items) and any(item.value for item in small))):
            raise ReferenceFileError(
                f"{path}, line {small[0].line}: {metric}={small[0].value:g} of {source} looks like a share; values are "
                "percentages. Multiply value, ci_low and ci_high by 100."
            )


def _holds(conditions: Mapping[str, Sequence[str]], names: Mapping[str, str]) -> bool:
    return all(names[column] in admitted for column, admitted in conditions.items())


@lru_cache(maxsize=1)
def _known() -> dict[str, Any]:
    return dict(yaml.safe_load((_ASSETS / "published_names.yaml").read_text(encoding="utf-8")))
