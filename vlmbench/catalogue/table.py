"""The table of all models, for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlmbench.catalogue.presence import presence
from vlmbench.catalogue.sources import sources_of
from vlmbench.config import schema
from vlmbench.weights.fetch import Brought
from vlmbench.weights.lock import Lock

HEAD = ("model", "kind", "role", "pair", "family", "source", "parameters", "GiB", "gated", "cached")
RIGHT = {"parameters", "GiB"}


def rows(models: Mapping[str, schema.ModelConfig], lock: Lock) -> list[dict[str, Any]]:
    """Return what the table says of each model; parameters in millions.

    Args:
        models: By the name that `model=` takes.
        lock: The lock file, for what is cached.
    """
    return [
        {
            "model": name,
            "kind": model.kind,
            "role": model.role,
            "pair": model.pair,
            "family": model.family,
            "source": source_text(model),
            "parameters": round(sum(model.parameters.values()), 1) or None,
            "GiB": round(download_gib(model), 2),
            "gated": any(source.gated for source in sources_of(model).values()),
            "cached": presence(model, lock),
        }
        for name, model in models.items()
    ]


def download_gib(model: schema.ModelConfig) -> float:
    """Return the size of everything that a model downloads, in GiB."""
    return sum(source.download_gib for source in sources_of(model).values())


def source_text(model: schema.ModelConfig) -> str:
    """Return where a model comes from, told in one word as far as that goes."""
    return f"datasets/{model.source}" if model.repo_type == "dataset" else model.source


def terminal(table: Iterable[Mapping[str, Any]]) -> str:
    """Return the rows in columns."""
    cells = [[_cell(key, row[key]) for key in HEAD] for row in table]
    return columns([list(HEAD), *cells], {HEAD.index(key) for key in RIGHT})


def fetched(brought: Iterable[Brought]) -> str:
    """Return what `fetch` brought, in columns."""
    lines = [
        [row.label, row.revision[:10] or "-", str(row.files or "-"), f"{row.size / 2**30:.2f}", row.status]
        for row in brought
    ]
    return columns([["model", "revision", "files", "GiB", "status"], *lines], {2, 3})


def columns(lines: Sequence[Sequence[str]], right: set[int]) -> str:
    """Return lines of cells with every column as wide as its widest cell; those in `right` end alike."""
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    padded = [
        [cell.rjust(widths[at]) if at in right else cell.ljust(widths[at]) for at, cell in enumerate(line)]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _cell(key: str, value: Any) -> str:
    if key == "parameters":
        return f"{value / 1000:.2f} B" if value and value >= 1000 else f"{value:.0f} M" if value else "-"
    if key == "gated":
        return "yes" if value else "-"
    return f"{value:.2f}" if key == "GiB" else str(value) or "-"
