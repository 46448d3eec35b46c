"""Domains built to be looked at rather than run: in each way of splitting, with what keeps them from being built."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from vlmbench.catalogue.domain_show import described
from vlmbench.catalogue.domain_table import here, tasks
from vlmbench.cell.domain import build_domain
from vlmbench.config import schema
from vlmbench.config.domain_checks import check_domain
from vlmbench.config.faults import ConfigError, unknown
from vlmbench.domains.base import Domain, DomainError
from vlmbench.domains.sheet import draw_sheet


def built(config: schema.DomainConfig, task: str | None = None) -> Domain:
    """Build a domain for a task that it serves, the first where none is named.

    Raises:
        ConfigError: It does not serve the task, or its configuration cannot work.
        DomainError: Its data are not as configured.
    """
    served = tasks(config)
    if task is not None and task not in served:
        raise ConfigError(unknown("--task", task, served))
    chosen = task or served[0]
    check_domain(config, chosen)
    return build_domain(config, chosen)  # type: ignore[arg-type]


def every_way(config: schema.DomainConfig, task: str | None = None) -> dict[str, dict[str, Any]]:
    """Return what is told of a domain for each task and way of splitting; nothing where its data are not here.

    Args:
        config: The domain.
        task: The only one, where given.

    Raises:
        ConfigError: It does not serve the task.
    """
    if here(config) == "absent":
        return {}
    ways = [""]
    if isinstance(config, schema.PublishedDomainConfig):
        ways = [config.split, *(way for way in ("study", "ours") if way != config.split)]
    several = len(tasks(config)) > 1
    out = {}
    for name in [task] if task else tasks(config):
        for way in ways:
            title = ", ".join([f"split={way}"] * bool(way) + [name] * (several or not way))
            chosen = dataclasses.replace(config, split=way) if way else config  # type: ignore[call-arg]
            try:
                out[title] = described(built(chosen, name))
            except DomainError as error:
                out[title] = {"task": name, "fault": str(error)}
    return out


def draw(config: schema.DomainConfig, task: str | None, file: str, seed: int) -> Path:
    """Draw a domain's contact sheet and return its path.

    Raises:
        ConfigError: The file is no PNG, or the configuration cannot work.
        DomainError: The data are not as configured, or the file cannot be written.
    """
    path = Path(file).expanduser()
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--sheet {file}: a sheet is a PNG file. Give a name that ends in .png.")
    return draw_sheet(built(config, task), path, seed=seed)
