"""The heat maps of the page: tables of tiles, so that they can be read aloud, searched and copied."""

from __future__ import annotations

from collections.abc import Sequence

from vlmbench.reporting.colour import VIRIDIS, colour, text_colour
from vlmbench.reporting.grids import Line, Matrix, Tile, cell_matrices, transfer_matrices
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study

# A table of more lines is cut into several, of which a browser lays out those that are in view.
LINES = 40


def section(study: Study) -> Section:
    """Model x finetune x domain."""
    return Section("heat", "Model, finetune and domain", _rendered("heat.html.j2", cell_matrices(study.rows)))


def transfers(study: Study) -> Section | None:
    """Tuned models on domains that they were not tuned on."""
    matrices = transfer_matrices(study.rows)
    return Section("transfer", "Transfer", _rendered("transfer.html.j2", matrices)) if matrices else None


def _rendered(template: str, matrices: Sequence[Matrix]):  # type: ignore[no-untyped-def]
    ramp = [f"#{code}" for code in VIRIDIS]
    return rendered(template, maps=[(matrix, blocks(matrix)) for matrix in matrices], ramp=ramp, paint=paint)


def blocks(matrix: Matrix) -> list[list[tuple[str, Sequence[Line]]]]:
    """The groups of a matrix as the tables they are drawn in: one for a small matrix, else of some lines each."""
    if len(matrix.lines) <= 3 * LINES:
        return [list(matrix.groups)]
    return [
        [(title, lines[start : start + LINES])]
        for title, lines in matrix.groups
        for start in range(0, len(lines), LINES)
    ]


def paint(tile: Tile, matrix: Matrix) -> str:
    """The inline style of a tile: its colour and a readable ink."""
    if tile.value is None:
        return ""
    background = colour(tile.value, matrix.scale)
    return f"background:{background};color:{text_colour(background)}"
