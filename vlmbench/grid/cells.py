"""The cells of a sweep: which are possible, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmbench.config import schema
from vlmbench.config.checks import check_cell
from vlmbench.config.faults import AbsentError, ImpossibleCellError
from vlmbench.config.sweeping import Sweep
from vlmbench.config.twins import twins


@dataclass(frozen=True)
class Impossible:
    """A point of the product that means nothing, or that another one stands for.

    Attributes:
        overrides: What was asked for.
        reason: Why it cannot be.
        what: What does not go together, in two words, under which a plan counts such points.
    """

    overrides: tuple[str, ...]
    reason: str
    what: str = ""


@dataclass(frozen=True)
class GridCell:
    """A point of the product that can be computed.

    Attributes:
        config: The cell.
        overrides: What was asked for.
        absent: What of it is not on this machine, where that can be told without building the domain.
    """

    config: schema.CellConfig
    overrides: tuple[str, ...]
    absent: str = ""


@dataclass(frozen=True)
class Grid:
    """What a sweep asks for.

    Attributes:
        name: `sweep.name`.
        cells: What can be computed, in the order of the product.
        impossible: What cannot.
    """

    name: str
    cells: Sequence[GridCell]
    impossible: Sequence[Impossible]


def grid_of(sweep: Sweep, *, absent: bool = False) -> Grid:
    """Check every point of a sweep.

    Args:
        sweep: What is asked for.
        absent: Whether cells are kept whose data or weights are not on this machine: for what only looks.

    Raises:
        ConfigError: A value is wrong; nothing is launched then.
    """
    cells, impossible = [], []
    for config, overrides in zip(sweep.configs, sweep.overrides, strict=True):
        try:
            check_cell(config)
        except ImpossibleCellError as error:
            impossible.append(Impossible(tuple(overrides), str(error), _named(config, str(error))))
        except AbsentError as error:
            if not absent:
                raise
            cells.append(GridCell(config, tuple(overrides), str(error)))
        else:
            cells.append(GridCell(config, tuple(overrides)))
    same = twins([cell.config for cell in cells])
    for position, reason in sorted(same.items()):
        impossible.append(Impossible(cells[position].overrides, reason, "the same as another"))
    cells = [cell for position, cell in enumerate(cells) if position not in same]
    name = sweep.configs[0].sweep.name if sweep.configs else "none"
    return Grid(name, cells, impossible)


def _named(config: schema.CellConfig, reason: str) -> str:
    """Return the two of a cell's parts that a reason is about; it begins with the key of one of them."""
    if reason.startswith("domain="):
        return f"{config.domain.name} x {config.task.name}"
    return f"{config.model.name} x {config.task.name if reason.startswith('task=') else config.finetune.name}"
