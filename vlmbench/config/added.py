"""Keys that no schema has: Hydra's `+key=value` adds them without a word."""

from __future__ import annotations

import dataclasses
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vlmbench.config.faults import ConfigError, unknown


def reject_added_keys(config: DictConfig, prefix: str = "") -> None:
    """Refuse keys that the schema does not have: Hydra's `+key=value` adds them without a word.

    Raises:
        ConfigError: At the first such key.
    """
    kind = OmegaConf.get_type(config)
    names = [item.name for item in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else None
    keys: list[Any] = list(config)  # in a mapping of codes to labels they may be numbers
    for key in keys:
        if names is not None and str(key) not in names:
            raise ConfigError(unknown(f"a key of {prefix.rstrip('.') or 'the command'}", key, names))
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        if isinstance(config[key], DictConfig):
            reject_added_keys(config[key], f"{prefix}{key}.")
