"""What a search may choose from: its space and budget, checked against every cell that it is for."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from vlmbench.config import schema
from vlmbench.config.checks import check_possible
from vlmbench.config.faults import AbsentError, ConfigError, unknown

WHERE = "hydra.sweeper.search"
RANGE = ("low", "high", "log", "step")
#: Model, task and data are what is compared; how a model is adapted is what is searched for.
GROUPS = ("finetune", "trainer")


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched for.

    Attributes:
        key: Dotted, for example `finetune.lr`.
        kind: `int`, `float`, or `choice`.
        low: Smallest value.
        high: Largest value.
        log: Whether values are drawn evenly in their logarithm.
        step: Distance between values; None for any (whole numbers: 1).
        choices: Of a `choice`.
    """

    key: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values that are admissible if all are."""
        return self.choices or (self.low, self.high)

    @property
    def middle(self) -> Any:
        """A value in the middle: what an estimate takes a trial for."""
        if self.choices:
            return self.choices[len(self.choices) // 2]
        value = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return round(value) if self.kind == "int" else value


@dataclass(frozen=True)
class Search:
    """A budget, the same for every model.

    Attributes:
        n_trials: Trials of each study, failed ones included.
        seed: Of what is drawn.
        batch: Trials of a study that run at the same time, none knowing the others' results.
        space: What is chosen.
    """

    n_trials: int
    seed: int
    batch: int
    space: tuple[Dimension, ...]

    def described(self) -> dict[str, Any]:
        """Return it as plain values."""
        space = {}
        for one in self.space:
            ranged = {"low": one.low, "high": one.high, "log": one.log, "step": one.step}
            space[one.key] = {"choices": list(one.choices)} if one.choices else ranged
        return {"n_trials": self.n_trials, "seed": self.seed, "batch": self.batch, "space": space}


def read_search(options: Mapping[str, Any], cells: Sequence[schema.CellConfig]) -> Search:
    """Read the options of a search and check them against every cell that is to be tuned.

    Args:
        options: `n_trials`, `seed`, `batch`, and `space`, nested like the configuration; null drops an entry.
        cells: At least one.

    Raises:
        ConfigError: A number or key that cannot be, a range that is empty or beyond what a field admits, or a method
            that trains nothing.
    """
    for name, least in (("n_trials", 1), ("batch", 1), ("seed", 0)):
        value = options.get(name)
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{WHERE}.{name}={value!r} must be a whole number of at least {least}.")
    for cell in cells:
        if not isinstance(cell.finetune, schema.OptimisedConfig):
            raise ConfigError(
                f"finetune={cell.finetune.name} has nothing to search for: it takes no gradient steps. A search is for "
                "coop, clip_adapter, lora, qlora, full and connector."
            )
        if cell.task.evaluate_on != "test":
            raise ConfigError("task.evaluate_on=val is what a search sets for its trials: leave it out.")
    found = list(_leaves(options.get("space") or {}, ""))
    if not found:
        raise ConfigError(f"{WHERE}.space is empty: give for example {WHERE}.space.finetune.lr={{low:1e-5,high:1e-2}}.")
    space = tuple(_dimension(key, leaf, cells[0]) for key, leaf in found)
    for cell in _distinct(cells):
        for one in space:
            _check_key(one.key, cell)
            for value in one.extremes:
                try:
                    check_possible(with_values(cell, {one.key: value}))
                except AbsentError:
                    raise
                except ConfigError as error:
                    raise ConfigError(f"{WHERE}.space.{one.key}: {error}") from error
    return Search(options["n_trials"], options["seed"], options["batch"], space)


def with_values(cell: schema.CellConfig, values: Mapping[str, Any]) -> schema.CellConfig:
    """Return a cell with other settings.

    Args:
        cell: The cell.
        values: Dotted key of `GROUPS` to value; a whole number for a field of real ones becomes a real one, so that
            equal settings have one identity.
    """
    for key, value in values.items():
        group, _, name = key.partition(".")
        node = getattr(cell, group)
        if _type_of(node, name) is float:
            value = float(value)
        cell = replace(cell, **{group: replace(node, **{name: value})})
    return cell


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if value is None:
            continue
        if not isinstance(value, Mapping):
            raise ConfigError(f"{WHERE}.space.{key}={value!r} must say low and high, or choices.")
        if not value or {"low", "high", "choices"} & value.keys():
            yield key, value
        else:
            yield from _leaves(value, f"{key}.")


def _dimension(key: str, leaf: Mapping[str, Any], cell: schema.CellConfig) -> Dimension:
    where = f"{WHERE}.space.{key}"
    for name in leaf:
        if name not in (*RANGE, "choices"):
            raise ConfigError(unknown(f"a key of {where}", name, (*RANGE, "choices")))
    _check_key(key, cell)
    leaf = {name: value for name, value in leaf.items() if value is not None}  # null drops what a YAML file says
    kind = _type_of(getattr(cell, key.partition(".")[0]), key.partition(".")[2])
    if "choices" in leaf:
        choices = leaf["choices"]
        if set(leaf) != {"choices"} or not isinstance(choices, list) or len(choices) < 2:
            raise ConfigError(f"{where}: give choices, a list of at least two, or low and high.")
        return Dimension(key, "choice", choices=tuple(choices))
    numbers = [leaf[name] for name in ("low", "high", "step") if name in leaf]
    whole = kind is int
    if kind not in (int, float) or not all(isinstance(one, int if whole else (int, float)) for one in numbers):
        raise ConfigError(f"{where}: {key} takes whole numbers." if whole else f"{where} is not numeric: give choices.")
    low, high, step, log = leaf.get("low"), leaf.get("high"), leaf.get("step"), bool(leaf.get("log", False))
    if low is None or high is None or not low < high:
        raise ConfigError(f"{where}: low={low} and high={high} are no range: low must be below high.")
    if log and (low <= 0 or step is not None):
        raise ConfigError(f"{where}: with log=true low must be above 0, and there is no step.")
    if step is not None and step <= 0:
        raise ConfigError(f"{where}: step={step} must be above 0.")
    return Dimension(key, kind.__name__, low, high, log, step)


def _check_key(key: str, cell: schema.CellConfig) -> None:
    group, _, name = key.partition(".")
    if group not in GROUPS:
        raise ConfigError(unknown(f"a key of {WHERE}.space", group, GROUPS))
    names = [item.name for item in fields(getattr(cell, group)) if item.name != "name"]
    if name not in names:
        drop = f"To search without it: {WHERE}.space.{key}=null."
        raise ConfigError(f"{unknown(f'a key of {WHERE}.space.{group}', name, names)} {drop}")


def _type_of(node: object, name: str) -> type | None:
    """Return the type of a field: int, float (also where it may be null), str, bool; None for others."""
    hint = typing.get_type_hints(type(node)).get(name)
    named = [one for one in typing.get_args(hint) or (hint,) if one is not type(None)]
    return named[0] if len(named) == 1 and isinstance(named[0], type) else None


def _distinct(cells: Sequence[schema.CellConfig]) -> list[schema.CellConfig]:
    """Return one cell for each method, model kind and trainer: what the checks of a space look at."""
    return list({repr((cell.finetune, cell.trainer, cell.model.kind, cell.task.name)): cell for cell in cells}.values())
