"""The heat map as a picture, for a README or a slide; the page draws its own as a table that can be read aloud."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmbench.reporting.colour import colour, text_colour
from vlmbench.reporting.grids import Line, Matrix, Tile, cell_matrices
from vlmbench.reporting.load import ReportError
from vlmbench.reporting.ordering import newest
from vlmbench.reporting.rows import Row
from vlmbench.reporting.text import interval_text, method_text, name_text, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches; the widths are the least.
ROW_HEIGHT, COLUMN_WIDTH, LABEL_WIDTH, HEAD_HEIGHT, FOOT_HEIGHT = 0.46, 1.75, 2.6, 1.15, 0.2
MISSING, FAILED, SOFT = "#f2f4f6", "#fdeced", "#59636e"
FOOT = (
    "In brackets: the interval of the record.\n“a to b, n”: mean, smallest and largest of n seeds.\n"
    "ID† / OOD: the pre-training did / did not cover the modality."
)


def heatmap_png(rows: Sequence[Row], path: Path, *, dpi: int = 160) -> Path:
    """Draw the heat map of every task and primary metric, one under the other.

    Args:
        rows: As `load.load_rows` gives them; of several records of one cell the newest is drawn.
        path: Where the PNG goes; its directory is created.
        dpi: Pixels an inch.

    Raises:
        ReportError: No row is a cell, so there is nothing to draw.
    """
    matrices = [matrix for matrix in cell_matrices(newest(rows)[0]) if matrix.lines]
    if not matrices:
        raise ReportError("no cell among the records, so there is no heat map to draw; run a cell or a grid first")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(matrices, dpi).savefig(path, metadata={"Software": None})  # the same records give the same bytes
    return path


def draw(matrices: Sequence[Matrix], dpi: int) -> Figure:
    """Draw heat maps one under the other, as wide as their names need."""
    from matplotlib.figure import Figure  # slow to import, and needed by this one picture alone

    heights = [HEAD_HEIGHT + ROW_HEIGHT * len(matrix.lines) for matrix in matrices]
    label, column = _widths(matrices)
    width = label + column * max(len(matrix.domains) for matrix in matrices)
    total = sum(heights) + FOOT_HEIGHT
    figure = Figure(figsize=(width, total), dpi=dpi, facecolor="white")
    top = total
    for matrix, height in zip(matrices, heights, strict=True):
        top -= height
        size = (column * len(matrix.domains) / width, ROW_HEIGHT * len(matrix.lines) / total)
        axes = figure.add_axes((label / width, (top + 0.3) / total, *size))
        _draw(axes, matrix, margin=-label / column + 0.08)
    figure.text(0.08 * column / width, 0.08 / total, FOOT, fontsize=6.5, color=SOFT)
    return figure


def _widths(matrices: Sequence[Matrix]) -> tuple[float, float]:
    """Inches of the labels and of a column: wide enough for the longest name, which would else be drawn over a tile."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    labels = [text for matrix in matrices for line in matrix.lines for text in (line.model, _adaptation(line))]
    heads = [text for matrix in matrices for name, modality in matrix.domains for text in (name, _brief(modality))]
    bold = FontProperties(weight="bold", size=8)  # the largest that a name is drawn in

    def longest(texts: Sequence[str]) -> float:
        return max(TextPath((0, 0), _plain(text), prop=bold).get_extents().width if text else 0 for text in texts) / 72

    return max(LABEL_WIDTH, longest(labels) + 0.3), max(COLUMN_WIDTH, longest(heads) + 0.15)


def _draw(axes: Axes, matrix: Matrix, margin: float) -> None:
    from matplotlib.patches import Rectangle

    lines = matrix.lines
    axes.set(xlim=(0, len(matrix.domains)), ylim=(len(lines), 0))
    axes.axis("off")
    name = f"{name_text(matrix.task)}: {name_text(matrix.metric) or 'no metric recorded'}"
    axes.text(margin, -1.25, _plain(name), fontsize=11, weight="bold", va="bottom")
    for column, (domain, modality) in enumerate(matrix.domains):
        axes.text(column + 0.04, -0.5, _plain(domain), fontsize=8, weight="bold", va="bottom")
        axes.text(column + 0.04, -0.12, _plain(_brief(modality)), fontsize=7, color=SOFT, va="bottom")
    for index, line in enumerate(lines):
        axes.text(margin, index + 0.31, _plain(line.model), fontsize=7.5, weight="bold", va="center")
        axes.text(margin, index + 0.7, _plain(_adaptation(line)), fontsize=7.5, color=SOFT, va="center")
        for column, tile in enumerate(line.tiles):
            face = {"missing": MISSING, "failed": FAILED, "undefined": MISSING}.get(tile.state, "")
            if tile.value is not None:
                face = colour(tile.value, matrix.scale)
            ink = text_colour(face) if tile.value is not None else SOFT
            axes.add_patch(Rectangle((column + 0.015, index + 0.04), 0.97, 0.92, facecolor=face, edgecolor="none"))
            axes.text(
                column + 0.06, index + 0.31, _plain(_value(tile)), fontsize=8.5, color=ink, weight="bold", va="center"
            )
            axes.text(column + 0.06, index + 0.7, _plain(_spread(tile)), fontsize=6.5, color=ink, va="center")
            mark = {"id": "ID†", "ood": "OOD", "unknown": "unk."}.get(tile.exposure, "")
            axes.text(column + 0.94, index + 0.31, mark, fontsize=6, color=ink, ha="right", va="center")


def _brief(modality: str) -> str:
    """Two of the modalities of a mixed domain and the number of the others: a column is as wide as its head."""
    first, *others = modality.split("+")
    return f"{first}+{others[0]} and {len(others) - 1} more" if len(others) > 2 else modality


def _plain(text: str) -> str:
    """Text that matplotlib takes literally: a pair of dollar signs would start mathematics."""
    return text.replace("$", r"\$")


def _adaptation(line: Line) -> str:
    return method_text(line.finetune, line.scope, line.variant)


def _value(tile: Tile) -> str:
    if tile.value is None:
        return {"missing": "not run", "failed": "failed"}.get(tile.state, "n/a")
    return value_text(tile.value)


def _spread(tile: Tile) -> str:
    failed = f", {tile.failed} failed" if tile.failed and tile.seeds else ""
    if tile.seeds > 1:
        return f"{value_text(tile.low)} to {value_text(tile.high)}, n={tile.seeds}{failed}"
    return (interval_text(tile.low, tile.high) or ("no interval" if tile.seeds else "")) + failed
