"""The readers by name, imported when they are called."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlmbench.domains.base import DomainError
from vlmbench.domains.published.layout import COMMON, Layout

#: Name, which is what `domain.reader` takes, to the module below this package and its function.
READERS: dict[str, str] = {
    "camelyon17": "camelyon17:read",
    "chexpert": "chexpert:read",
    "medmnist": "medmnist:read",
    "gf3300": "harvard:read_gf3300",
    "fairvlmed": "harvard:read_fairvlmed",
    "drishti": "drishti:read",
    "kermany": "kermany:read",
    "ham10000": "ham10000:read",
    "papila": "papila:read",
    "hub_vqa": "hub_vqa:read",
    "omnimedvqa": "omnimedvqa:read",
    "pmc_oa": "captions:read_pmc_oa",
    "pmc_vqa": "pmc_vqa:read",
    "roco": "captions:read_roco",
    "slake": "slake:read",
    "fairvlmed_vqa": "fairvlmed_vqa:read",
}


def read_layout(reader: str, root: Path, settings: Mapping[str, Any]) -> Layout:
    """Read a dataset in its official layout.

    Args:
        reader: Name of the reader.
        root: Folder that holds the layout.
        settings: Further arguments of the reader.

    Raises:
        DomainError: No such reader or setting, or the layout is not as it must be.
    """
    if reader not in READERS:
        raise DomainError(f"domain.reader={reader!r} is none of {', '.join(sorted(READERS))}")
    module, _, name = READERS[reader].partition(":")
    read: Callable[..., Layout] = getattr(importlib.import_module(f"vlmbench.domains.published.{module}"), name)
    takes = {name: taken for name, taken in inspect.signature(read).parameters.items() if name != "root"}
    known = list(takes)
    if unknown := sorted(set(settings) - set(known)):
        raise DomainError(
            f"domain.settings has {', '.join(unknown)}, which the reader {reader} does not take; it takes "
            f"{', '.join(known) or 'none'}"
        )
    for name, taken in takes.items():
        if name not in settings and taken.default is taken.empty:
            raise DomainError(f"domain.settings.{name} is not set, which the reader {reader} needs")
        kind = {"str": str, "int": int}.get(str(taken.annotation))
        if kind is not None and not isinstance(settings.get(name, kind()), kind):
            raise DomainError(f"domain.settings.{name}={settings[name]!r} is no {kind.__name__}, as {reader} takes")
    layout = read(root, **settings)
    ids = layout.frame["id"]
    if ids.duplicated().any():
        twice = sorted(set(ids[ids.duplicated()]))
        raise DomainError(
            f"{root}: {len(twice):,} ids occur more than once, such as {', '.join(twice[:5])}; bring the tables anew"
        )
    assert set(COMMON) <= set(layout.frame.columns)  # noqa: S101 - a reader's own mistake
    return layout
