"""How points of a figure are told apart, by colour and by shape, so that either is enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmbench.reporting.colour import CATEGORIES
from vlmbench.reporting.ordering import FINETUNES, rank
from vlmbench.reporting.rows import Row


def marks(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Plotly markers that tell methods by colour and the role of a model by shape, filled and open by model."""
    methods = sorted({(row.finetune, row.scope) for row in rows}, key=lambda one: (rank(one[0], FINETUNES), one[1]))
    models = sorted({row.model for row in rows})
    shapes = {"generalist": "circle", "specialist": "diamond"}
    return [
        {
            "color": CATEGORIES[methods.index((row.finetune, row.scope)) % len(CATEGORIES)],
            "symbol": shapes.get(row.role, "square") + ("-open" if models.index(row.model) % 4 > 1 else ""),
            "size": 9,
        }
        for row in rows
    ]
