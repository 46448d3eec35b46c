"""Miniatures of public datasets for tests, and their domains."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from make_miniature import make

from vlmbench.catalogue.read import named_domain
from vlmbench.cell.domain import build_domain
from vlmbench.config.schema import PublishedDomainConfig
from vlmbench.domains.base import Domain, DomainError


def make_all(names: Iterable[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the miniature of each dataset below its name."""
    folder = tmp_path_factory.mktemp("miniatures")
    for name in names:
        make(name, folder / name)
    return folder


def config(name: str, root: Path | str, *overrides: str) -> PublishedDomainConfig:
    """Return a dataset's configuration with another root and what else is set."""
    found = named_domain(name, overrides=[f"root={root}", *overrides])
    assert isinstance(found, PublishedDomainConfig)
    return found


def build(name: str, root: Path | str, *overrides: str) -> Domain:
    """Return a dataset's domain for diagnosis."""
    return build_domain(config(name, root, *overrides), "diagnosis")


def fails(name: str, root: Path | str, *overrides: str) -> str:
    """Return what is said, in one line, of a dataset that cannot be built."""
    with pytest.raises(DomainError) as caught:
        build(name, root, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)
