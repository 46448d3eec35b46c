"""Many points of one product composed at once: as Hydra composes each, without doing the common work again."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf, open_dict

from vlmbench.config.added import reject_added_keys
from vlmbench.config.parts import Parts, UnsureError
from vlmbench.progress import Countdown

#: Points of each product that are composed both ways, and further ones in each thousand.
SAMPLE = 4


def compose_all(loader: ConfigLoader, master: DictConfig, jobs: Sequence[Sequence[str]]) -> Iterator[Any]:
    """Compose the points of a sweep.

    A few are composed both by Hydra and from parts (see `vlmbench.config.parts`); should they differ, Hydra composes
    all. It also composes each point that parts cannot be trusted with, and each in which something is wrong.

    Args:
        loader: Hydra's, of the running command.
        master: The configuration of the sweep itself, with its `hydra` node.
        jobs: The overrides of each point.

    Yields:
        One plain dataclass tree for each point, equal to what Hydra itself gives. Sections (`config.model`,
        `config.domain`, ...) that are the same in several points are the same object: they are to be read, and
        `copy.deepcopy`ed by whoever wants to change one.

    Raises:
        ConfigError: A key that the schema does not have.
        omegaconf.errors.OmegaConfBaseException, hydra.errors.HydraException: A value or name that is wrong.
    """

    @lru_cache(maxsize=1)  # asked twice for the first point of all
    def remembered(overrides: tuple[str, ...]) -> Any:
        return compose_one(loader, master, overrides)

    def whole(overrides: Sequence[str]) -> Any:
        return remembered(tuple(overrides))

    parts = Parts(loader, master, whole) if len(jobs) > SAMPLE else None
    if parts is not None and not _agree(parts, whole, jobs):
        print("vlmbench: the quick way of composing differs from Hydra's own, which is used instead.", file=sys.stderr)
        parts = None
    countdown = Countdown("Composing cells", len(jobs))
    told = False
    for index, overrides in enumerate(jobs):
        config = reason = None
        if parts is not None:
            try:
                config = parts.point(overrides)
            except Exception as error:  # noqa: BLE001 - Hydra has the last word, and the right message
                reason = str(error) if isinstance(error, UnsureError) else f"{type(error).__name__}: {error}"
        if config is None:
            config = whole(overrides)
        if reason and not told:
            told = True
            print(f"vlmbench: some cells are composed one by one, which takes longer: {reason}.", file=sys.stderr)
        yield config
        countdown.update(index + 1)
    countdown.close()


def compose_one(loader: ConfigLoader, master: DictConfig, overrides: Sequence[str]) -> Any:
    """Compose one point of a sweep by Hydra alone.

    Raises:
        ConfigError: A key that the schema does not have.
        omegaconf.errors.OmegaConfBaseException, hydra.errors.HydraException: A value or name that is wrong.
    """
    config = loader.load_sweep_config(master, list(overrides))
    with open_dict(config):
        del config["hydra"]
    reject_added_keys(config)
    return OmegaConf.to_object(config)


def _agree(parts: Parts, whole: Callable[[Sequence[str]], Any], jobs: Sequence[Sequence[str]]) -> bool:
    """Whether some points, drawn the same way each time, are alike from parts and by Hydra."""
    for overrides in random.Random(0).sample(list(jobs), SAMPLE + len(jobs) // 1000):
        try:
            pair = parts.point(overrides), whole(overrides)
        except Exception:  # noqa: BLE001, S112 - told when the point's turn comes
            continue
        if repr(pair[0]) != repr(pair[1]):  # unlike ==, tells 1 from 1.0 and one order of keys from another
            return False
    return True
