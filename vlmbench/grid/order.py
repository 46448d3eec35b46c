"""Which cell runs when: what several share is computed by the first of them, and the long ones do not come last."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlmbench.config import schema
from vlmbench.config.checks import encoded_splits

Seconds = Callable[[schema.CellConfig], float]


@dataclass(frozen=True)
class Turn:
    """A cell's place in the order.

    Attributes:
        index: Which cell: its position in the list that was given.
        after: Position of the cell that must have ended before this one starts; None if it may start at once.
    """

    index: int
    after: int | None = None


def shared_key(config: schema.CellConfig) -> tuple[str, ...]:
    """Return what cells that can share features have in common: model with its preprocessing, domain, arithmetic.

    Subsets of a training split are parts of the same images, so that few-shot cells go with the whole.
    """
    domain = dataclasses.replace(config.domain, fraction=1.0, fraction_seed=0, shots=0)
    return repr(config.model), repr(domain), config.task.name, config.trainer.precision, config.trainer.accelerator


def turns(configs: Sequence[schema.CellConfig], seconds: Seconds | None = None) -> list[Turn]:
    """Order cells: groups that share features one behind the other, the longest group first.

    The first cell of a group that encodes is the one that encodes most and is done soonest, a linear probe on the whole
    training split where there is one; the others of its group that encode some of the same wait for it, unless it goes
    on to train. The order depends on nothing but the arguments.

    Args:
        configs: The cells that are to run.
        seconds: An estimate for each; without one groups stay in the order of their first cells.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, config in enumerate(configs):
        groups.setdefault(shared_key(config), []).append(index)
    took = [seconds(config) if seconds else 0.0 for config in configs]
    longest = sorted(groups.values(), key=lambda group: -sum(took[index] for index in group))
    return [turn for group in longest for turn in _group(group, configs, took)]


def _group(group: Sequence[int], configs: Sequence[schema.CellConfig], took: Sequence[float]) -> list[Turn]:
    encoded = {index: set(encoded_splits(configs[index])) for index in group}
    encoding = [index for index in group if encoded[index]]
    first = min(encoding, key=lambda index: _rank(configs[index], took[index])) if encoding else None
    others = sorted((index for index in group if index != first), key=lambda index: -took[index])
    if first is None:
        return [Turn(index) for index in others]
    # One that trains holds what it has encoded long before it ends: whoever wants the same waits for that alone, when
    # it comes to it.
    trains = isinstance(configs[first].finetune, schema.OptimisedConfig)
    waits = {index for index in others if encoded[index] & encoded[first] and not trains}
    return [Turn(first), *(Turn(index, first if index in waits else None) for index in others)]


def _rank(config: schema.CellConfig, took: float) -> tuple[bool, int, float]:
    whole = config.domain.fraction == 1.0 and config.domain.shots == 0
    return not whole, -len(encoded_splits(config)), took


def seconds_left(
    ended: Sequence[tuple[float, float]], queued: Sequence[float], running: Sequence[tuple[float, float]], jobs: int
) -> float | None:
    """Return how long the rest takes, by how long ended cells took against their estimates; None before the first.

    Args:
        ended: Estimate and wall time of each cell that was run.
        queued: Estimates of those that wait.
        running: Estimate and time so far of those at work.
        jobs: Cells that run at the same time.
    """
    expected = sum(estimate for estimate, _ in ended)
    if not expected:
        return None
    scale = sum(took for _, took in ended) / expected
    rest = scale * sum(queued) + sum(max(0.0, scale * estimate - so_far) for estimate, so_far in running)
    return rest / max(1, min(jobs, len(queued) + len(running)))
