"""What a plan says, as plain values: counts, times, sizes, what is missing, and every cell."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from vlmbench.cell.naming import method_of
from vlmbench.grid.cells import Grid
from vlmbench.grid.devices import ATTAINED, DEVICES, Device, device_of
from vlmbench.grid.plan import PlannedCell
from vlmbench.grid.sizes import disk, together

SCHEMA = 1
STATES = ("done", "running", "failed", "interrupted", "not started")
#: Significant digits of a time: finished cells tell two, counted operations one. Sums are rounded where they are shown.
MEASURED, COUNTED = 2, 1
GIB = 2**30

TABLES: dict[str, Callable[[PlannedCell], str]] = {
    "model": lambda one: one.cell.config.model.name,
    "finetune": lambda one: method_of(one.cell.config.finetune),
    "domain": lambda one: one.cell.config.domain.name + one.cell.config.domain.variant(),
}


def facts(
    grid: Grid,
    planned: Sequence[PlannedCell],
    device: Device | None,
    flags: Sequence[str],
    trials: Sequence[PlannedCell] = (),
) -> dict[str, Any]:
    """Return everything that `plan` tells but for the single cells.

    Args:
        grid: The sweep.
        planned: Its cells, looked up.
        device: What the user named for what the cells leave open.
        flags: Options of Hydra that every command of a cell needs, such as `--config-dir`.
        trials: Of a search, those that are left: times are theirs too; what they leave on disk is small.

    Returns:
        Plain values; `tests/test_grid_command.py` holds their names.
    """
    to_do = [one for one in planned if one.to_do]
    sizes = together(disk(one.cell.config, one.rows) for one in to_do)
    missing = _missing(planned)
    return {
        "schema": SCHEMA,
        "sweep": grid.name,
        "points": len(planned) + len(grid.impossible),
        "possible": len(planned),
        "impossible": _impossible(grid),
        "states": states(planned),
        "to_do": len(to_do),
        "running": [cell(one, flags) for one in planned if one.state.status == "running"],
        "failed": [cell(one, flags) for one in planned if one.state.status == "failed"],
        "missing": missing,
        "estimate": {**hours([*to_do, *trials]), "counted_at": _speeds([*to_do, *trials], device)},
        "disk": {"kept_gib": rounded(sizes.kept / GIB, 2), "passing_gib": rounded(sizes.passing / GIB, 2)},
        "downloads": {
            "gib": rounded(sum(row["gib"] for row in missing), 2),
            "complete": all(row["sized"] for row in missing if row["kind"] in ("data", "weights")),
        },
        "tables": {name: table(planned, key, trials) for name, key in TABLES.items()},
    }


def cell(one: PlannedCell, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Return what is told of one cell; `seconds` is what it took if it is done, else the estimate."""
    state, config = one.state, one.cell.config
    done = state.status == "done" and state.seconds > 0
    digits = MEASURED if one.estimate.basis == "measured" else COUNTED
    unknown = one.estimate.basis == "unknown"
    return {
        "state": state.status,
        "label": one.label,
        "model": config.model.name,
        "finetune": method_of(config.finetune),
        "domain": config.domain.shown_name(),
        "task": config.task.name,
        "seed": config.seed,
        "seconds": state.seconds if done else None if unknown else rounded(one.estimate.seconds, digits),
        "basis": "record" if done else one.estimate.basis,
        "host": state.host,
        "pid": state.pid,
        "beat": round(state.beat, 1),
        "text": state.text,
        "folder": str(one.name.folder) if one.name else "",
        "missing": [missing.what for missing in one.missing],
        "command": command(one.cell.overrides, flags),
    }


def command(overrides: Sequence[str], flags: Sequence[str] = ()) -> str:
    """Return what computes one cell alone: the words of its point, and that it is one although a sweep names many."""
    single = ["hydra.mode=RUN"] if any(word.startswith("sweep=") for word in overrides) else []
    return "python -m vlmbench.train " + shlex.join([*flags, *overrides, *single])


def states(planned: Iterable[PlannedCell]) -> dict[str, int]:
    """Return the number of cells in every state, 0 included."""
    found = Counter(one.state.status for one in planned)
    return {state: found[state] for state in STATES}  # type: ignore[index]


def hours(cells: Iterable[PlannedCell]) -> dict[str, Any]:
    """Return GPU and CPU hours of some cells, and how many of them are measured, counted, and of unknown cost.

    Cells of one model and domain decode its images once, and those on its frozen image tower encode them once.
    """
    total = {"gpu": 0.0, "cpu": 0.0}
    read: set[tuple[str, str]] = set()
    encoded: set[tuple[str, str, str]] = set()
    bases: Counter[str] = Counter()
    for one in cells:
        guess = one.estimate
        bases[guess.basis] += 1
        if guess.basis == "unknown":
            continue
        pixels = one.cell.config.model.name, one.cell.config.domain.name
        spared = guess.reading if pixels in read else 0.0
        spared += sum(seconds for split, seconds in guess.encoding.items() if (*pixels, split) in encoded)
        read.add(pixels)
        encoded.update((*pixels, split) for split in guess.encoding)
        total[guess.kind] += guess.hours - spared * guess.devices / 3600
    return {
        **{f"{kind}_hours": rounded(value, MEASURED) for kind, value in total.items()},
        **{basis: bases[basis] for basis in ("measured", "counted", "unknown")},
    }


def table(
    planned: Sequence[PlannedCell], key: Callable[[PlannedCell], str], trials: Sequence[PlannedCell] = ()
) -> list[dict[str, Any]]:
    """Return one row for each value of a key: cells by state, and the hours of what is to do, trials included."""
    groups: dict[str, list[PlannedCell]] = {}
    for one in planned:
        groups.setdefault(key(one), []).append(one)
    tried: dict[str, list[PlannedCell]] = {}
    for one in trials:
        tried.setdefault(key(one), []).append(one)
    rows = []
    for name, group in groups.items():
        to_do = [*(one for one in group if one.to_do), *tried.get(name, ())]
        rows.append({"name": name, "cells": len(group), **states(group), **hours(to_do)})
    return rows


def rounded(value: float, digits: int) -> float:
    """Return a number to so many significant digits."""
    if not value or not math.isfinite(value):
        return 0.0
    return float(f"{value:.{digits}g}")


def _impossible(grid: Grid) -> list[dict[str, Any]]:
    found = Counter((point.what, point.reason) for point in grid.impossible)
    return [{"what": what, "cells": count, "reason": reason} for (what, reason), count in found.items()]


def _missing(planned: Iterable[PlannedCell]) -> list[dict[str, Any]]:
    found = Counter(missing for one in planned for missing in one.missing)
    rows = [{**vars(missing), "cells": count} for missing, count in found.items()]
    return sorted(rows, key=lambda row: ("data", "weights", "key", "package").index(row["kind"]))


def _speeds(cells: Iterable[PlannedCell], chosen: Device | None) -> list[str]:
    """Return what the counted cells are counted for."""
    used = {device_of(one.cell.config, chosen) for one in cells if one.estimate.basis == "counted"}
    return sorted(_speed(device) for device in used)


def _speed(device: Device) -> str:
    if device.kind == "cpu":
        return f"a CPU at {device.single / 1e9:.0f} GFLOP/s a cell"
    share = f"{100 * ATTAINED:.0f} % of its peak" if device in DEVICES.values() else "as told"
    return f"{device.name} at {device.half / 1e12:.2g} TFLOP/s, {device.single / 1e12:.2g} in float32 ({share})"
