"""Generalist beside specialist: pairs cells that were treated alike and refuses, with the reason, all others."""

from __future__ import annotations

import json
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

    @property
    def difference(self) -> float:
        """Generalist minus specialist, of the primary metric."""
        left, right = self.generalist.primary.value, self.specialist.primary.value
        if left is None or right is None:
            raise ValueError("a comparison needs two values")
        return left - right

    @property
    def overlap(self) -> bool | None:
        """Whether the two intervals share a point; None where one is missing."""
        left, right = self.generalist.primary.interval, self.specialist.primary.interval
        if left is None or right is None:
            return None
        return left[0] <= right[1] and right[0] <= left[1]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A comparison that is not shown, and why."""

    row: Row
    partner: str
    reason: str


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and JSON texts of the leaves of a config, without those that cannot change a result."""
    if isinstance(config, Mapping):
        for key in sorted(config, key=str):
            path = f"{prefix}.{key}" if prefix else str(key)
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
    they end with other values.
    """
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


def compare(rows: Sequence[Row]) -> tuple[list[Comparison], list[Refusal]]:
    """Pair the cells of each generalist with those of its specialists.

    Two cells are paired where task, finetune, scope, domain, seed, recipe, data and primary metric are the same and
    both hold a value. Everything else that a declared pair could have been is refused with the reason.
    """
    cells = [row for row in rows if row.kind == "cell" and row.model and row.domain]
    recipes = {id(row): recipe(row) for row in cells}

    def between(left: Row, right: Row) -> list[str]:
        if not (left.done and right.done):
            return _obstacles(left, right)
        return _obstacles(left, right) + differences(recipes[id(left)], recipes[id(right)])

    comparisons: list[Comparison] = []
    refusals: list[Refusal] = []
    paired: set[str] = set()
    for general, special in links(rows):
        paired |= {general, special}
        sides: dict[tuple[Any, ...], tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
        for row in cells:
            if row.model in (general, special):
                key = (row.task, row.domain, row.finetune, row.scope, row.seed)
                sides[key][row.model == special].append(row)
        for key in sorted(sides, key=str):
            lefts, rights = sides[key]
            left_over = list(rights)
            for left in lefts:
                best = min(rights, key=lambda right: len(between(left, right)), default=None)
                reasons = between(left, best) if best else [f"no cell of {special} with the same settings and seed"]
                if best in left_over:
                    left_over.remove(best)
                if best and not reasons:
                    comparisons.append(Comparison(left, best))
                else:
                    refusals.append(Refusal(left, special, "; ".join(reasons)))
            for right in left_over:
                reasons = (
                    between(lefts[0], right) if lefts else [f"no cell of {general} with the same settings and seed"]
                )
                refusals.append(Refusal(right, general, "; ".join(reasons) or "its partner is already compared"))
    for name, pair in sorted({(row.model, row.pair) for row in cells if row.pair and row.model not in paired}):
        example = next(row for row in cells if row.model == name)
        refusals.append(Refusal(example, pair, f"no record of {pair} among these, for any cell of {name}"))
    return comparisons, refusals


def obstacles(left: Row, right: Row) -> list[str]:
    """Say why two cells of the same finetune, scope and domain must not be compared; empty where they may."""
    found = _obstacles(left, right)
    return found + differences(recipe(left), recipe(right)) if left.done and right.done else found


def _obstacles(left: Row, right: Row) -> list[str]:
    """Why two cells of the same finetune, scope, domain and seed must not be compared, recipes aside."""
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
    return found
