"""The table of all domains, for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vlmbench.catalogue.table import columns
from vlmbench.config import schema
from vlmbench.config.checks import DOMAIN_TASKS

HEAD = ("domain", "modality", "tasks", "kinds", "train", "val", "test", "access", "licence", "here")
RIGHT = {"train", "val", "test"}
_LICENCE = 28


def rows(domains: Mapping[str, schema.DomainConfig]) -> list[dict[str, Any]]:
    """Return what the table says of each domain; rows as published, None where nothing is.

    Args:
        domains: By the name that `domain=` takes.
    """
    return [
        {
            "domain": name,
            "modality": domain.modality,
            "tasks": tasks(domain),
            "kinds": list(getattr(domain, "kinds", [])),
            **{split: getattr(domain, "published", {}).get(split) for split in ("train", "val", "test")},
            "access": getattr(domain, "access", "") or ("own" if hasattr(domain, "root") else "made"),
            "licence": licence(domain),
            "here": here(domain),
        }
        for name, domain in domains.items()
    ]


def licence(domain: schema.DomainConfig) -> str:
    """Return a domain's licence; phantoms are this program's own."""
    return domain.licence or ("Apache-2.0 (generated)" if isinstance(domain, schema.PhantomDomainConfig) else "")


def tasks(domain: schema.DomainConfig) -> list[str]:
    """Return the tasks that a domain serves."""
    if isinstance(domain, schema.PublishedDomainConfig):
        return list(domain.tasks)
    found = DOMAIN_TASKS[domain.source]
    mixed = isinstance(domain, schema.PhantomDomainConfig) and len(domain.modalities) != 1
    return [task for task in found if not (mixed and task == "diagnosis")]


def here(domain: schema.DomainConfig) -> str:
    """Return whether the data are on this machine: `present`, `partial`, `absent`; `made` for phantoms.

    A public dataset is present where every pattern of its layout is matched by something, whatever else is missing.
    """
    if isinstance(domain, schema.PhantomDomainConfig):
        return "made"
    found = layout(domain)
    if not found or not any(found.values()):
        return "absent"
    return "present" if all(found.values()) else "partial"


def layout(domain: schema.DomainConfig) -> dict[str, bool]:
    """Return whether each part of a domain's layout is there: patterns below its root, or a table of the user's own."""
    root = Path(str(getattr(domain, "root", ""))).expanduser()
    patterns = domain.layout if isinstance(domain, schema.PublishedDomainConfig) else [getattr(domain, "table", "")]
    if not str(getattr(domain, "root", "")) or not root.is_dir():
        return dict.fromkeys(patterns, False)
    # It imports pandas, which takes longer than all the rest of the table.
    from vlmbench.domains.published.layout import lacking

    gone = set(lacking(root, patterns))
    return {pattern: pattern not in gone for pattern in patterns}


def terminal(table: Iterable[Mapping[str, Any]]) -> str:
    """Return the rows in columns."""
    cells = [[_cell(key, row[key]) for key in HEAD] for row in table]
    return columns([list(HEAD), *cells], {HEAD.index(key) for key in RIGHT})


def short(licence: str) -> str:
    """Return a licence in a few words."""
    return licence if len(licence) <= _LICENCE else f"{licence[: _LICENCE - 3].rstrip(' ,;(')}..."


def _cell(key: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    if key in RIGHT:
        return "-" if value is None else f"{value:,}"
    return (short(value) if key == "licence" else str(value)) or "-"
