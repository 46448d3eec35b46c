"""What the filters of the page choose by: a few words about each record, as data for its script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from vlmbench.reporting.longtable import method_key, setting
from vlmbench.reporting.ordering import TASKS, rank
from vlmbench.reporting.rows import Row

EXPOSURES = {"id": "in distribution", "ood": "out of distribution", "unknown": "unknown"}
# The name in the address, the name on the page, and what a record says.
FACETS = (
    ("model", "Model", lambda row: row.model),
    ("method", "Method", setting),
    ("domain", "Domain", lambda row: row.domain),
    ("exposure", "Exposure", lambda row: EXPOSURES[row.exposure]),
    ("task", "Task", lambda row: row.task),
    ("seed", "Seed", lambda row: "" if row.seed is None else str(row.seed)),
    ("role", "Role", lambda row: row.role),
    ("status", "Status", lambda row: f"{row.kind} {row.status}"),
)


def numbers(rows: Sequence[Row]) -> dict[str, int]:
    """Identity to number: the place of the first record that carries it."""
    found: dict[str, int] = {}
    for place, row in enumerate(rows):
        if row.identity:
            found.setdefault(row.identity, place)
    return found


def facets(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The filters: key, title, and values in their order; each row's words are places in `values`, -1 for none."""
    orders = {"method": {setting(row): method_key(row) for row in rows}}
    made = []
    for key, title, word in FACETS:
        words = [word(row) for row in rows]
        values = sorted({told for told in words if told}, key=lambda told: _place(key, told, orders.get(key, {})))
        places = {told: place for place, told in enumerate(values)}
        made.append({"key": key, "title": title, "values": values, "cells": [places.get(told, -1) for told in words]})
    return made


def data(made: Sequence[Mapping[str, Any]]) -> Markup:
    """The same as JSON that may stand in a page."""
    return Markup(json.dumps(made, separators=(",", ":")).replace("<", "\\u003c"))  # noqa: S704 - "<" is the one danger


def _place(key: str, told: str, order: Mapping[str, Any]) -> Any:
    if key == "seed":
        return int(told)
    if key == "task":
        return rank(told, TASKS)
    return order.get(told, told)
