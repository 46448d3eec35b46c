"""A plan and the state of a grid in words, for a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlmbench.catalogue.table import columns
from vlmbench.grid.facts import COUNTED, MEASURED, STATES, rounded

#: Failed and running cells that a plan names; `status --cells` names all.
_NAMED = 5
_SHORT = {"done": "d", "running": "r", "failed": "f", "interrupted": "i", "not started": "."}


def plan_text(told: Mapping[str, Any]) -> str:
    """Return what `plan` prints."""
    impossible = sum(row["cells"] for row in told["impossible"])
    search = told.get("search")
    to_do = f"{search['left']:,} trials and {told['to_do']:,} cells" if search else f"{told['to_do']:,}"
    lines = [
        f"sweep {told['sweep']}: {told['points']:,} point{'s' * (told['points'] != 1)}, {told['possible']:,} possible, "
        f"{impossible:,} impossible",
        *([search_line(search)] if search else []),
        state_line(told["states"]),
        f"to do {to_do}: {_cost(told)}",
    ]
    if told["impossible"]:
        lines += ["", "impossible"]
        lines += [f"  {row['what']} ({row['cells']:,}): {row['reason']}" for row in told["impossible"]]
    for state, hint in (("running", ""), ("failed", "; python -m vlmbench.grid retry runs them again")):
        if rows := told[state]:
            lines += ["", f"{state}{hint}"]
            lines += [f"  {row['label']}  {where(row)}".rstrip() for row in rows[:_NAMED]]
            lines += [f"  and {len(rows) - _NAMED:,} more: status --cells"] if len(rows) > _NAMED else []
    if told["missing"]:
        lines += ["", "missing on this machine", *_missing(told["missing"])]
    for name, rows in told["tables"].items():
        lines += ["", _table(name, rows)]
    estimate = told["estimate"]
    if estimate["counted"]:
        none = "" if estimate["measured"] else "nothing like it was measured here: "
        counted = f"{none}counted for {', '.join(estimate['counted_at'])}, right within a factor of a few"
        lines += ["", f"{counted}; --device and --tflops tell of others"]
    return "\n".join(lines)


def search_line(search: Mapping[str, int]) -> str:
    """Return how far a search is on one line."""
    each = f"{search['studies']:,} studies of {search['n_trials']:,} trials each"
    return f"search: {each}, {search['ended']:,} of {search['trials']:,} trials ended; the best of each runs as cells"


def state_line(states: Mapping[str, int]) -> str:
    """Return the number of cells in every state on one line."""
    return ", ".join(f"{states[state]:,} {state}" for state in STATES)


def where(row: Mapping[str, Any]) -> str:
    """Return what is told of a cell beside its state: where it runs, or how it ended."""
    if row["state"] == "running":
        process = f"on {row['host']}, process {row['pid']}" if row["host"] else "elsewhere"
        return f"{process}, last sign of life {duration(row['beat'])} ago"
    return row["text"] or (f"needs {', '.join(row['missing'])}" if row["missing"] else "")


def cell_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return one line a cell: state, time, what that is from, directory, command."""
    lines = [
        [
            row["state"].replace(" ", "-"),
            "-" if row["seconds"] is None else ("" if row["basis"] == "record" else "~") + duration(row["seconds"]),
            row["basis"],
            row["folder"] or f"- ({row['label']}: {', '.join(row['missing'])} missing)",
            row["command"],
        ]
        for row in rows
    ]
    return columns(lines, {1}) if lines else ""


def status_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return one line a cell: state, time, label, where it runs or how it ended, directory."""
    lines = [
        [
            row["state"].replace(" ", "-"),
            duration(row["seconds"]) if row["basis"] == "record" else "-",
            row["label"],
            where(row),
            row["folder"] or "-",
        ]
        for row in rows
    ]
    return columns(lines, {1}) if lines else ""


def status_grid(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return models and methods down, domains across, and the states of what lies there."""
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    places: dict[tuple[str, str], dict[str, Counter[str]]] = {}
    for row in rows:
        at = places.setdefault((row["model"], row["finetune"]), {})
        at.setdefault(row["domain"], Counter())[row["state"]] += 1
    single = all(sum(found.values()) == 1 for at in places.values() for found in at.values())

    def told(found: Counter[str] | None) -> str:
        if not found:
            return "-"
        if single:
            return next(iter(found))
        return " ".join(f"{found[state]}{_SHORT[state]}" for state in STATES if found[state])

    lines = [["model", "finetune", *domains]]
    lines += [[*key, *(told(at.get(domain)) for domain in domains)] for key, at in places.items()]
    legend = "" if single else "\n" + ", ".join(f"{short} {state}" for state, short in _SHORT.items())
    return columns(lines, set()) + legend


def duration(seconds: float, digits: int = 2) -> str:
    """Return a time to at most two digits in the unit that suits it: `40 s`, `12 min`, `3.5 h`, `9 d`."""
    for unit, size, limit in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < size * limit:
            return f"{_digits(seconds / size, digits)} {unit}"
    return f"{_digits(seconds / 86400, digits)} d"


def _digits(value: float, digits: int = 2) -> str:
    value = rounded(value, digits)
    return f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:,.0f}"


def _amount(hours: float, device: str, digits: int) -> str:
    if hours >= 1:
        return f"about {_digits(hours, digits)} {device} hours"
    minutes = hours * 60
    return f"about {_digits(minutes, digits)} {device} minutes" if minutes >= 1 else f"less than a {device} minute"


def _precise(row: Mapping[str, Any]) -> int:
    """Return the digits of a sum of hours: counted operations are right within a factor of a few."""
    return COUNTED if row["counted"] else MEASURED


def _cost(told: Mapping[str, Any]) -> str:
    estimate, parts = told["estimate"], []
    for kind in ("gpu", "cpu"):
        if estimate[f"{kind}_hours"]:
            parts.append(_amount(estimate[f"{kind}_hours"], kind.upper(), _precise(estimate)))
    bases = [f"{estimate[basis]:,} {basis}" for basis in ("measured", "counted", "unknown") if estimate[basis]]
    if not bases:
        return "nothing"
    disk = told["disk"]
    # Of no record and no adapter is less than this; more digits would say nothing.
    parts.append(f"{_gib(disk['kept_gib'])} on disk")
    if disk["passing_gib"] >= 0.01:
        parts.append(f"{_gib(disk['passing_gib'])} more for a cell that trains")
    downloads = told["downloads"]
    if downloads["gib"] or not downloads["complete"]:
        parts.append(f"{_gib(downloads['gib'])}{'' if downloads['complete'] else ' and more'} to download")
    return f"{', '.join(parts)} (times: {', '.join(bases)})"


def _gib(value: float) -> str:
    return f"{_digits(value)} GiB" if value >= 1 else f"{max(1.0, value * 1024):.0f} MiB"


def _missing(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        size = f", {_gib(row['gib'])}{'' if row['sized'] else ' and more'}" if row["gib"] else ""
        how = row["command"] or textwrap.shorten(row["reason"], 200)
        lines.append(f"  {row['kind']} of {row['what']}{size} ({row['cells']:,} cells): {how}")
        if row["by_hand"]:
            lines.append(f"    first: {row['by_hand']}")
    return lines


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    kinds = [kind for kind in ("gpu", "cpu") if any(row[f"{kind}_hours"] for row in rows)]
    head = [name, "cells", *STATES, *(f"{kind.upper()} time to do" for kind in kinds)]
    lines = [
        [row["name"], f"{row['cells']:,}", *(f"{row[state]:,}" if row[state] else "-" for state in STATES)]
        + [_time(row, kind) for kind in kinds]
        for row in rows
    ]
    return columns([head, *lines], set(range(1, len(head))))


def _time(row: Mapping[str, Any], kind: str) -> str:
    value, digits = row[f"{kind}_hours"], _precise(row)
    if value:
        return f"~{duration(3600 * value, digits) if value < 1 else f'{_digits(value, digits)} h'}"
    return "?" if row["unknown"] else "-"
