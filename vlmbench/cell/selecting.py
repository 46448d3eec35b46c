"""What chooses on the validation split, and what was chosen."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import Any

from vlmbench.config import schema
from vlmbench.domains.base import Domain
from vlmbench.errors import UserError


@dataclass(frozen=True)
class Selection:
    """What was chosen on the validation split, and by what."""

    metric: str
    value: float
    chosen: dict[str, Any] = field(default_factory=dict)


def selectable(config: schema.CellConfig, domain: Domain, label: str) -> schema.CellConfig:
    """Return the configuration, with the loss as what selects where the AUROC of the validation split is undefined.

    Of examples that all have the same labels it is: whichever candidate comes first would be taken for the best.

    Args:
        config: The cell.
        domain: Its domain.
        label: The cell, for the message; empty for none.

    Raises:
        UserError: The cell is a trial of a search, whose values are compared with those of others.
    """
    labels = [tuple(sorted(example.labels)) for example in domain.split("val")]
    undefined = config.task.monitor == "val/auroc" and len(set(labels)) == 1
    if config.task.name != "diagnosis" or config.finetune.name == "zero_shot" or not undefined:
        return config
    said = f"val/auroc is undefined: all {len(labels)} examples of the validation split have the same label"
    if config.task.evaluate_on == "val":
        raise UserError(f"{said}. Give it examples of others, or set task.monitor=val/loss.")
    if label:
        print(f"{label}  {said}; val/loss selects.", file=sys.stderr, flush=True)
    return dataclasses.replace(config, task=dataclasses.replace(config.task, monitor="val/loss"))
