"""Points of a product that give the same result: of each such set one is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vlmbench.config import schema
from vlmbench.config.prompts import shows_examples

# What nothing is drawn in: probes start from zero or from means, and off the shelf nothing is trained.
SEEDLESS = ("zero_shot", "linear_probe", "lp_text")


def twins(cells: Sequence[schema.CellConfig]) -> dict[int, str]:
    """Return which cells of a grid another one stands for, as position to reason.

    `zero_shot` trains on nothing, so that the seed decides nothing, nor do `domain.fraction` and `domain.shots` unless
    candidate prompts show training examples; a linear probe, informed by text or not, does not depend on the seed. The
    cell on the whole train split is kept where there is one, else the first.
    A grid over seeds and fractions is a plain product all the same.

    Args:
        cells: In the order of the product.
    """
    same: dict[str, list[int]] = {}
    for position, cell in enumerate(cells):
        same.setdefault(_result(cell), []).append(position)
    left_out = {}
    for positions in same.values():
        kept = min(positions, key=lambda position: _subset(cells[position]))
        for position in positions:
            if position != kept:
                left_out[position] = _reason(cells[position], cells[kept])
    return left_out


def _subset(cell: schema.CellConfig) -> bool:
    return cell.domain.fraction < 1 or cell.domain.shots > 0


def _result(cell: schema.CellConfig) -> str:
    """Return a text that two cells share where the second would give the result of the first."""
    if cell.finetune.name in SEEDLESS:
        cell = replace(cell, seed=0)
    if cell.finetune.name == "zero_shot" and not shows_examples(cell):
        cell = replace(cell, domain=replace(cell.domain, fraction=1.0, shots=0))
    return repr(cell)


def _reason(cell: schema.CellConfig, kept: schema.CellConfig) -> str:
    if cell == kept:
        return "it is in the product twice."
    shown = f"domain={kept.domain.shown_name()} seed={kept.seed}"
    why = "trains on nothing" if cell.finetune.name == "zero_shot" else "draws nothing"
    return f"the same as {shown}: {cell.finetune.name} {why}."
