"""What a multirun hands from Hydra's sweeper to the command that was typed: the cells, and who launches them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sweep:
    """The product that a multirun spells out.

    Attributes:
        configs: One plain dataclass tree for each point, in the order of the product.
        overrides: The overrides of each point, as Hydra hands them to a launcher.
        launcher: Hydra's launcher, set up: `hydra/launcher=...` chooses it.
        search: Budget and space where each point is to be tuned, see `vlmbench.config.space`; None where not.
    """

    configs: Sequence[Any]
    overrides: Sequence[Sequence[str]]
    launcher: Any
    search: Mapping[str, Any] | None = None


Handler = Callable[[Sweep], Any]
_handlers: list[Handler] = []


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Let a function take the sweep of the multirun that is composed within the block."""
    _handlers.append(handler)
    try:
        yield
    finally:
        _handlers.pop()


def handle(sweep: Sweep) -> Any:
    """Hand a sweep to the command; called by the sweeper.

    Raises:
        RuntimeError: No command waits for one: the sweeper belongs to vlmbench's own commands.
    """
    if not _handlers:
        raise RuntimeError("hydra/sweeper=vlmbench works in the commands of vlmbench alone.")
    return _handlers[-1](sweep)
