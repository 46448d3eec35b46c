"""Many points of one product composed at once: as Hydra composes each, without doing the common work again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf, open_dict

from vlmbench.config.added import reject_added_keys


def compose_all(loader: ConfigLoader, master: DictConfig, jobs: Sequence[Sequence[str]]) -> Iterator[Any]:
    """Compose the points of a sweep.

    Args:
        loader: Hydra's, of the running command.
        master: The configuration of the sweep itself, with its `hydra` node.
        jobs: The overrides of each point.

    Yields:
        One plain dataclass tree for each point, equal to what Hydra itself gives.

    Raises:
        ConfigError: A key that the schema does not have.
        omegaconf.errors.OmegaConfBaseException, hydra.errors.HydraException: A value or name that is wrong.
    """
    for overrides in jobs:
        config = loader.load_sweep_config(master, list(overrides))
        with open_dict(config):
            del config["hydra"]
        reject_added_keys(config)
        yield OmegaConf.to_object(config)
