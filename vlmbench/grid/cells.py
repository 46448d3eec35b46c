"""The cells of a sweep: which are possible, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmbench.config import schema
from vlmbench.config.checks import check_possible
from vlmbench.config.faults import AbsentError, ImpossibleCellError
from vlmbench.config.presence import check_present
from vlmbench.config.sweeping import Sweep
from vlmbench.config.twins import twins


@dataclass(frozen=True)
class Impossible:
    """A point of the product that means nothing, or that another one stands for.

    Attributes:
        overrides: What was asked for.
        reason: Why it cannot be.
    """

    overrides: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class GridCell:
    """A point of the product that can be computed.

    Attributes:
        config: The cell.
        overrides: What was asked for.
        absent: What keeps it from being computed on this machine, data, weights or a key, and how to get that.
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


def grid_of(sweep: Sweep) -> Grid:
    """Check every point of a sweep.

    Raises:
        ConfigError: A value is wrong; nothing is launched then.
    """
    cells, impossible = [], []
    for config, overrides in zip(sweep.configs, sweep.overrides, strict=True):
        absent = ""
        try:
            check_possible(config)
            check_present(config)
        except ImpossibleCellError as error:
            impossible.append(Impossible(tuple(overrides), str(error)))
            continue
        except AbsentError as error:
            absent = str(error)
        cells.append(GridCell(config, tuple(overrides), absent))
    same = twins([cell.config for cell in cells])
    impossible += [Impossible(cells[position].overrides, reason) for position, reason in sorted(same.items())]
    cells = [cell for position, cell in enumerate(cells) if position not in same]
    name = sweep.configs[0].sweep.name if sweep.configs else "none"
    return Grid(name, cells, impossible)
