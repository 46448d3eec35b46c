"""From a record's configuration back to typed dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vlmbench.config import schema
from vlmbench.config.faults import ConfigError
from vlmbench.config.store import SCHEMAS


def cell_from_dict(config: Mapping[str, Any]) -> schema.CellConfig:
    """Rebuild the configuration of a finished cell.

    Raises:
        ConfigError: The record was written with fields that this version does not have.
    """
    try:
        kinds = {
            "model": SCHEMAS[f"schema/model/{config['model']['kind']}"],
            "task": SCHEMAS[f"schema/task/{config['task']['name']}"],
            "finetune": SCHEMAS[f"schema/finetune/{config['finetune']['name']}"],
            "domain": SCHEMAS[f"schema/domain/{config['domain']['source']}"],
            "logger": SCHEMAS[f"schema/logger/{config['logger']['name']}"],
        }
        merged = OmegaConf.structured(schema.CellConfig)
        for group, kind in kinds.items():
            merged[group] = OmegaConf.structured(kind)
        cell = OmegaConf.to_object(OmegaConf.merge(merged, dict(config)))
    except (KeyError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"the record's configuration does not fit this version: {error}. Train the cell again."
        ) from error
    if not isinstance(cell, schema.CellConfig):
        raise ConfigError("the record's configuration is not that of a cell.")
    return cell
