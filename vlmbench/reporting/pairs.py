"""Pairs a generalist's cells with the specialist's that were treated alike, and says what keeps others apart."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from vlmbench.records.identity import IDLE, NOT_IDENTITY
from vlmbench.reporting.rows import Row

RECIPE_PARTS = ("finetune", "trainer", "task", "domain")
# What cannot change a result is no recipe: two sides may lie in different folders or run on different hardware. Of the
# task everything stays, since intervals of another confidence are not for comparison.
_SCALARS = (str, int, float, bool, type(None))
NOT_RECIPE = frozenset(path for path in NOT_IDENTITY if path.startswith(("trainer.", "domain.")))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A generalist's and a specialist's cell that differ in the model alone."""

    generalist: Row
    specialist: Row


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and JSON texts of the leaves of a config, without those that cannot change a result."""
    if isinstance(config, Mapping):
        for key in sorted(config, key=str):
            path = sys.intern(f"{prefix}.{key}" if prefix else str(key))  # thousands of records share it
            if path not in NOT_RECIPE:
                yield from flatten(config[key], path)
    else:
        yield prefix, _scalar(type(config).__name__, config) if isinstance(config, _SCALARS) else _text(config)


@lru_cache(maxsize=1)
def _idle() -> dict[str, str]:
    """The leaves that do nothing at this value."""
    return {leaf: text for path, value in IDLE.items() for leaf, text in flatten(value, path)}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


@lru_cache(maxsize=4096)
def _scalar(kind: str, value: Hashable) -> str:
    """The text of a value that thousands of records share; 1, 1.0 and True are told apart by their kind."""
    return _text(value)


def recipe(row: Row, parts: Sequence[str] = RECIPE_PARTS) -> dict[str, str]:
    """The leaves of the parts of a record's config that make its recipe; empty where the record holds none.

    Of what a search chose the recipe is the search: two sides that were searched for alike are treated alike, though
    they end with other values. Worked out once for a row, and not to be changed in place.
    """
    parts = tuple(parts)
    if parts not in row.memo:
        row.memo[parts] = _recipe(row, parts)
    return row.memo[parts]


def _recipe(row: Row, parts: Sequence[str]) -> dict[str, str]:
    config = row.mapping("config")
    leaves = dict(flatten({part: config[part] for part in parts if part in config}))
    search = row.mapping("search")
    chosen = search.get("values")
    for key in chosen if isinstance(chosen, Mapping) else ():
        if key in leaves:
            leaves[key] = f"searched for in {search.get('n_trials')} trials, budget {search.get('budget')}"
    # A setting that does nothing is one that records from before it existed have as well.
    return {key: text for key, text in leaves.items() if _idle().get(key) != text}


def differences(left: Mapping[str, str], right: Mapping[str, str]) -> list[str]:
    """Name the leaves on which two recipes differ, as `key: left against right`."""
    keys = sorted({key for key in (*left, *right) if left.get(key) != right.get(key)})
    return [f"{key}: {left.get(key, 'absent')} against {right.get(key, 'absent')}" for key in keys]


def links(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Pairs of (generalist, specialist) model names, as the records of either side declare them.

    A `pair` names the other model; two models of opposite roles that name the same third word are a pair as well.
    """
    models = {(row.model, row.role, row.pair) for row in rows if row.model}
    generalists = sorted(entry for entry in models if entry[1] == "generalist")
    specialists = sorted(entry for entry in models if entry[1] == "specialist")
    found = {
        (general, special)
        for general, _, general_pair in generalists
        for special, _, special_pair in specialists
        if general_pair == special or special_pair == general or (general_pair and general_pair == special_pair)
    }
    return sorted(found)


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """Pair the cells of each generalist with those of its specialists.

    Two cells are paired where task, finetune, scope, domain, seed, recipe, data and primary metric are the same and
    both hold a value.
    """
    alike: dict[tuple[object, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.kind == "cell" and row.done and row.domain:
            alike[(row.task, row.domain, row.finetune, row.scope, row.seed)][row.model].append(row)
    pairs = links(rows)
    return [
        Comparison(left, right)
        for key in sorted(alike, key=str)
        for general, special in pairs
        for left in alike[key].get(general, ())
        if (right := next((one for one in alike[key].get(special, ()) if not obstacles(left, one)), None))
    ]


def obstacles(left: Row, right: Row) -> list[str]:
    """Say why two cells of the same finetune, scope and domain must not be compared; empty where they may."""
    for row in (left, right):
        if not row.done:
            return [f"{row.model} failed"]
    found = []
    if left.primary_metric != right.primary_metric:
        found.append(f"primary metric: {left.primary_metric} against {right.primary_metric}")
    for row in (left, right):
        if row.primary.value is None:
            found.append(f"{row.model} has no value: {row.primary.reason}")
        if not {"finetune", "trainer"} <= row.mapping("config").keys():
            found.append(f"the record of {row.model} holds no recipe")
        if not row.text("data", "fingerprint"):
            found.append(f"the record of {row.model} does not say which data it is of")
    fingerprints = left.text("data", "fingerprint"), right.text("data", "fingerprint")
    if fingerprints[0] != fingerprints[1]:
        found.append(f"data fingerprint: {fingerprints[0][:12] or 'absent'} against {fingerprints[1][:12] or 'absent'}")
    return found + differences(recipe(left), recipe(right))
