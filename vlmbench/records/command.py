"""The command line that a record's cell is run by, from the configuration in it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vlmbench.config.product import compose_all, compose_one
from vlmbench.config.store import conf_dir, register
from vlmbench.errors import UserError
from vlmbench.records.identity import NOT_IDENTITY

# Of what decides no result, that which is still to be said: where weights lie, and what reports sort by.
_TOLD = ("model.source", "model.revision", "model.role", "model.pair", "model.family", "model.pretraining_modalities")
_UNTOLD = (
    *("output", "lock", "logger", "sweep", "domain.root"),
    *(key for key in NOT_IDENTITY if key.startswith(("model.", "domain.")) and key not in _TOLD),
)
# Data of the user's own, which no option of the group says the place of.
_OWN = ("folder", "vqa_jsonl", "captions_jsonl")
_PLAIN = re.compile(r"[A-Za-z_./][\w./@:+-]*")
_KEY = re.compile(r"[A-Za-z_]\w*")
_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "none", "nan", "inf", "")


@dataclasses.dataclass(frozen=True)
class Command:
    """How a cell is run.

    Attributes:
        line: For a shell; empty where there is none.
        reason: Why there is none.
    """

    line: str = ""
    reason: str = ""


def command_of(record: Mapping[str, Any], cell: str = "") -> Command:
    """Return the command of one record; see `commands_of`."""
    return commands_of([record], [cell])[0]


def commands_of(records: Sequence[Mapping[str, Any]], cells: Sequence[str] = ()) -> list[Command]:
    """Return the command of each record: its options, and each setting that differs from what they compose to.

    Each is composed again. What comes out otherwise than the record has it, such as a key that a command line cannot
    name, has no command.

    Args:
        records: Of cells and transfers, whose `config` is complete or, in older records, lacks newer fields.
        cells: Directory of the trained cell of each transfer; not looked at for cells.
    """
    parts: dict[str, _Part] = {}
    asked = [_split(record, parts) for record in records]
    settled = list(parts.values())
    for part, base in zip(settled, _composed([part.options for part in settled]), strict=True):
        if isinstance(base, Exception):
            part.reason = f"its options do not compose: {_line(base)}"
        else:
            part.overrides = list(_overrides(base, part.config))
    told = [part for part in settled if part.overrides]
    for part, made in zip(told, _composed([part.options + part.overrides for part in told]), strict=True):
        if isinstance(made, Exception):
            part.reason = f"a setting of it does not fit this version: {_line(made)}"
        elif differing := list(_overrides(made, part.config)):
            part.reason = f"a command line cannot say {', '.join(word.split('=')[0] for word in differing)}"
    ends = zip(records, asked, cells or [""] * len(records), strict=True)
    return [found if isinstance(found, Command) else _joined(record, found, cell) for record, found, cell in ends]


@dataclasses.dataclass
class _Part:
    """Sections of a configuration on their way to words of a command line."""

    config: Mapping[str, Any]
    options: list[str]
    overrides: list[str] = dataclasses.field(default_factory=list)
    reason: str = ""


def _split(record: Mapping[str, Any], parts: dict[str, _Part]) -> list[_Part] | Command:
    """The parts of a record, which many have in common: the domain, and for a cell all the rest but its seed.

    No file of one of the two reads a setting of the other, so that they compose apart as they do together.
    """
    config = record.get("config")
    if not isinstance(config, Mapping) or not isinstance(config.get("domain"), Mapping):
        return Command(reason="the record holds no configuration")
    try:
        made = [_Part({"domain": config["domain"]}, _option("domain", config["domain"], "source"))]
        if record.get("kind") != "transfer":
            names = [f"task={config['task']['name']}", f"finetune={config['finetune']['name']}"]
            rest = {key: value for key, value in config.items() if key not in ("domain", "seed")}
            made.insert(0, _Part(rest, [*_option("model", config["model"], "kind"), *names]))
    except (KeyError, TypeError) as error:
        return Command(reason=f"its configuration is not complete: {error}")
    return [parts.setdefault(_json([part.options, part.config]), part) for part in made]


def _joined(record: Mapping[str, Any], parts: Sequence[_Part], cell: str) -> Command:
    if reason := "; ".join(part.reason for part in parts if part.reason):
        return Command(reason=reason)
    options = [word for part in parts for word in part.options]
    overrides = [word for part in parts for word in part.overrides]
    if record.get("kind") != "transfer":
        words = [*options, f"seed={_value(record['config'].get('seed', 0))}", *overrides]
        return Command(f"python -m vlmbench.train {shlex.join(words)}")
    if not cell:
        return Command(reason="the record does not lie below the cell that it was made from")
    return Command(f"python -m vlmbench.evaluate {shlex.join([f'cell={_value(cell)}', *options, *overrides])}")


def _option(group: str, config: Mapping[str, Any], kind: str) -> list[str]:
    """The option of a group by its name, else one of its kind; with what that option needs to be told."""
    known = _options(group)
    name, sort = config["name"], config[kind]
    chosen = name if known.get(name) == sort else next((option for option, of in known.items() if of == sort), sort)
    words = [f"{group}={chosen}"]
    if group == "domain" and sort in _OWN:
        words.append(f"domain.root={_value(config['root'])}")
    if group == "model" and sort == "hosted":
        words.append(f"model.source={_value(config['source'])}")
    return words


@lru_cache(maxsize=2)
def _options(group: str) -> dict[str, str]:
    """Each option of a config group and its kind, from the schema that its file names; those of one's own first."""
    found = {}
    for path in sorted((conf_dir() / group).glob("*.yaml"), key=lambda path: (path.stem not in _OWN, path.stem)):
        if kind := re.search(rf"/schema/{group}/(\w+)@_here_", path.read_text(encoding="utf-8")):
            found[path.stem] = kind[1]
    return found


def _composed(jobs: Sequence[Sequence[str]]) -> list[Any]:
    """Compose each list of words, or say what is wrong with it; equal ones once."""
    distinct = list(dict.fromkeys(tuple(words) for words in jobs))
    if not distinct:
        return []
    loader, master = _hydra()
    try:
        made: list[Any] = list(compose_all(loader, master, distinct))
    except (HydraException, OmegaConfBaseException, UserError, ValueError):
        made = [_one(loader, master, words) for words in distinct]  # one of them is wrong: the others are not
    known = dict(zip(distinct, made, strict=True))
    return [known[tuple(words)] for words in jobs]


def _one(loader: ConfigLoader, master: DictConfig, words: Sequence[str]) -> Any:
    try:
        return compose_one(loader, master, words)
    except (HydraException, OmegaConfBaseException, UserError, ValueError) as error:
        return error


@lru_cache(maxsize=1)
def _hydra() -> tuple[ConfigLoader, DictConfig]:
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return loader, loader.load_configuration("train", overrides=[], run_mode=RunMode.MULTIRUN)


def _overrides(base: Any, config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The words that turn a composed configuration into a record's."""
    names = [item.name for item in dataclasses.fields(base)] if dataclasses.is_dataclass(base) else []
    for key, value in config.items():
        path = f"{prefix}{key}"
        if path in _UNTOLD:
            continue
        if key not in names:
            yield f"{path}={_value(value)}"
            continue
        was = getattr(base, key)
        if dataclasses.is_dataclass(was) and isinstance(value, Mapping):
            yield from _overrides(was, value, f"{path}.")
        elif isinstance(was, Mapping) and isinstance(value, Mapping):
            yield from _merged(path, was, value)
        elif not _same(was, value):
            yield f"{path}={_value(value)}"


def _merged(path: str, was: Mapping[Any, Any], value: Mapping[Any, Any]) -> Iterator[str]:
    """A mapping: what is said of it is merged into the one that is there, so that only what differs is said."""
    other = {key: item for key, item in value.items() if key not in was or not _same(was[key], item)}
    gone = [key for key in was if key not in value]
    if all(map(_is_key, other)):
        yield from (f"{path}.{key}={_value(item)}" for key, item in other.items())
    else:
        yield f"{path}={_value(other)}"
    yield from (f"~{path}.{key}" for key in gone)


def _same(left: Any, right: Any) -> bool:
    return _json(left) == _json(right)


def _json(value: Any) -> str:
    """A value as a record holds it."""
    return json.dumps(value, sort_keys=True, default=lambda part: dataclasses.asdict(part))


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and _KEY.fullmatch(key) is not None


def _value(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_escaped(str(key))}:{_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_value, value)) + "]"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f".{value}"
    return str(value) if isinstance(value, int) else _text(value)


def _escaped(key: str) -> str:
    """A key of a mapping, which Hydra does not take in quotes."""
    return re.sub(r"[\\()\[\]{}:=,\s]", lambda found: "\\" + found[0], key)


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    # Hydra takes a backslash as itself, but before a quote.
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text) + "'"


def _line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
