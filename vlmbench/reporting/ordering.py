"""The order of rows, which record of a cell is the newest, and how several recipes of one cell are told apart."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from vlmbench.reporting.pairs import recipe
from vlmbench.reporting.rows import Row

TASKS = ("diagnosis", "vqa", "pretrain")
FINETUNES = ("zero_shot", "linear_probe", "lp_text", "coop", "clip_adapter", "connector", "lora", "qlora", "full")
ROLES = ("generalist", "specialist", "baseline")
VARIANT_PARTS = ("model", "finetune", "trainer", "task", "domain")


def order(row: Row) -> tuple[Any, ...]:
    """Sort key: task, then finetune from the lightest to the heaviest, scope, role, model, domain, seed."""
    return (
        rank(row.task, TASKS),
        rank(row.finetune, FINETUNES),
        row.scope,
        rank(row.role, ROLES),
        row.model,
        row.trained_on,
        row.domain,
        -1 if row.seed is None else row.seed,
    )


def rank(name: str, known: Sequence[str]) -> tuple[int, str]:
    """Sort known names in their order, then the others by the alphabet."""
    return (known.index(name) if name in known else len(known), name)


def newest(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Split rows into the newest of each cell, variant and seed, and the older ones that it replaces."""
    latest: dict[tuple[Any, ...], Row] = {}
    older: list[Row] = []
    dated = sorted(zip(rows, variants(rows), strict=True), key=lambda pair: (pair[0].text("finished"), pair[0].path))
    for row, variant in dated:
        placed = row.model and row.domain and row.task
        key = (line_key(row), variant, row.kind, row.domain, row.seed) if placed else (row.path,)
        if key in latest:
            older.append(latest[key])
        latest[key] = row
    return sorted(latest.values(), key=order), sorted(older, key=order)


def variants(rows: Sequence[Row]) -> list[str]:
    """Say of each row which recipe it is, where rows that share a tile were run with different ones; else "".

    Only settings that differ within one tile (same model, finetune, scope and domain) are named, so that a recipe that
    is adapted to each domain does not split a line. Seeds are not part of a recipe here; the version of the data is.
    """
    leaves = [_leaves(row) for row in rows]
    tiles: dict[tuple[Any, ...], list[dict[str, str]]] = defaultdict(list)
    for row, leaf in zip(rows, leaves, strict=True):
        if leaf:
            tiles[(line_key(row), row.domain)].append(leaf)
    varying: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for (line, _), members in tiles.items():
        keys = {key for leaf in members for key in leaf} if len(members) > 1 else set()
        varying[line] |= {key for key in keys if len({leaf.get(key) for leaf in members}) > 1}
    return [_variant_label(leaf, sorted(varying[line_key(row)])) for row, leaf in zip(rows, leaves, strict=True)]


def _leaves(row: Row) -> dict[str, str]:
    leaves = {key: value for key, value in recipe(row, VARIANT_PARTS).items() if key.rsplit(".", 1)[-1] != "seed"}
    # A failed record says nothing of its data but their hash, which is the fingerprint.
    data = row.text("data", "fingerprint") or row.text("hashes", "data")
    return leaves | {"data": data[:12]} if leaves and data else leaves


def _variant_label(leaf: dict[str, str], keys: Sequence[str]) -> str:
    if not keys:
        return ""
    if not leaf:
        return "recipe not recorded"
    told = [f"{key}={leaf.get(key, 'absent')}".replace('"', "") for key in keys]
    if len(told) <= 3:
        return ", ".join(told)
    digest = hashlib.sha256("\n".join(told).encode(errors="replace")).hexdigest()[:8]
    return f"{', '.join(told[:2])} and {len(told) - 2} more (recipe {digest})"


def line_key(row: Row) -> tuple[str, ...]:
    """What makes the rows of one line of a heat map, recipes aside."""
    return (row.task, row.primary_metric, row.model, row.finetune, row.scope, row.trained_on)
