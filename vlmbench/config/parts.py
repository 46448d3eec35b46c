"""A configuration composed in parts: each section once for all points that have it in common.

Hydra merges files key by key: what a section (`model`, `seed`, ...) becomes is decided by the files and overrides that
write below it, and by the sections that its interpolations name. Sections are composed by Hydra's own functions.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vlmbench.config.added import reject_added_keys
from vlmbench.config.choices import Choices, Layer

# Mentioned by an interpolation: what it names is itself computed, or known to Hydra alone.
ANYTHING, HYDRA = "*", "hydra"
# These give the same wherever and whenever they are asked; others are left to Hydra.
RESOLVERS = {"oc.select", "oc.env"}
# Most configurations that are kept before values are set in them: each may take a megabyte.
MERGED = 500


class UnsureError(Exception):
    """A point that Hydra itself has to compose; the message says why."""


@dataclass(frozen=True, eq=False)
class Word:
    """One override.

    Attributes:
        override: As Hydra parses it.
        chooses: Whether it chooses an option of a config group, rather than sets a value.
        mentions: Of its interpolations, by the section below which it writes.
    """

    override: Override
    chooses: bool
    mentions: Mapping[str, frozenset[str]]


@dataclass(frozen=True, eq=False)
class Loaded:
    """What an entry of a defaults list holds.

    Attributes:
        config_path: As in the defaults list.
        result: As Hydra loads it, embedded where it goes.
        whole: Whether it is the schema of the root.
        mentions: Of its interpolations, by the section below which it writes.
    """

    config_path: str
    result: ConfigResult
    whole: bool
    mentions: Mapping[str, frozenset[str]]


Things = tuple[Word | Loaded, ...]


class Parts:
    """The parts of the points of one product.

    Args:
        loader: Hydra's, of the running command.
        master: The configuration of the sweep itself, with its `hydra` node.
        whole: Lets Hydra compose a point; called once for each way in which Hydra itself is set up.
    """

    def __init__(self, loader: ConfigLoaderImpl, master: DictConfig, whole: Callable[[Sequence[str]], Any]) -> None:
        self._loader, self._parser, self._whole = loader, OverridesParser.create(), whole
        name, always = master.hydra.job.config_name, list(master.hydra.overrides.hydra)
        parsed, self._repo = loader._parse_overrides_and_create_caching_repo(name, always)
        self._choices = Choices(self._repo, name, [override for override in parsed if self._chooses(override)])
        self._words: dict[str, Word] = {}
        self._loaded: dict[Layer, Loaded] = {}
        self._hydra: set[Things] = set()
        self._kinds: dict[Things, type] = {}
        self._named: dict[tuple[str, Things], frozenset[str]] = {}
        self._merged: dict[Any, DictConfig] = {}
        self._values: dict[Any, Any] = {}

    def point(self, overrides: Sequence[str]) -> Any:
        """Return a point as a plain dataclass tree; equal sections of different points are the same object.

        Raises:
            UnsureError: Hydra itself has to compose it.
            Exception: Whatever Hydra raises for wrong names and values, which may say less than for the whole point.
        """
        words = [self._word(line) for line in overrides]
        layers = self._choices.of([word.override for word in words if word.chooses])
        things: list[Word | Loaded] = [*map(self._load, layers), *(word for word in words if not word.chooses)]
        own: dict[str, list[Word | Loaded]] = {}
        for thing in things:
            for section in thing.mentions:
                own.setdefault(section, []).append(thing)
        by_section = {section: tuple(listed) for section, listed in own.items()}
        of_hydra = by_section.pop(HYDRA, ())
        if of_hydra not in self._hydra:
            self._whole(overrides)  # Hydra's own settings are no part of a cell, but may be wrong
            self._hydra.add(of_hydra)
        kind = self._kind(tuple(thing for thing in things if isinstance(thing, Loaded) and thing.whole))
        names = [item.name for item in dataclasses.fields(kind)]
        if foreign := by_section.keys() - set(names):
            raise UnsureError(f"{', '.join(sorted(foreign))} is no key of the schema")
        return kind(**{name: self._value(name, by_section, things) for name in names})

    def _value(self, name: str, own: Mapping[str, Things], things: Sequence[Word | Loaded]) -> Any:
        """Return a section of a point as plain values."""
        wanted = self._wanted(name, own)
        key = (name, tuple((section, own[section]) for section in wanted))
        if key not in self._values:
            config = self._composed(wanted, [thing for thing in things if thing.mentions.keys() & set(wanted)])
            if name not in config.keys():  # noqa: SIM118 - `in` does not see a key whose value is not set
                raise UnsureError(f"{name} is taken away")
            value = config[name]
            if isinstance(value, DictConfig):
                reject_added_keys(value, f"{name}.")
            self._values[key] = OmegaConf.to_object(value) if OmegaConf.is_config(value) else value
        return self._values[key]

    def _wanted(self, name: str, own: Mapping[str, Things]) -> tuple[str, ...]:
        """Return a section and all others that its interpolations reach."""
        wanted, new = {name}, [name]
        while new:
            section = new.pop()
            key = (section, own[section])
            if key not in self._named:
                self._named[key] = frozenset().union(*(thing.mentions[section] for thing in own[section]))
            if HYDRA in (named := self._named[key]):
                raise UnsureError(f"{section} has an interpolation that Hydra alone resolves")
            reached = own.keys() if ANYTHING in named else named & own.keys()
            new.extend(reached - wanted)
            wanted |= reached
        return tuple(sorted(wanted))

    def _composed(self, wanted: Sequence[str], things: Sequence[Word | Loaded]) -> DictConfig:
        """Return a configuration in which the wanted sections are as Hydra composes them, and others are not filled."""
        loaded = [thing for thing in things if isinstance(thing, Loaded)]
        key = (tuple(wanted), tuple(loaded))
        if key not in self._merged:
            if len(self._merged) >= MERGED:
                self._merged.clear()
            self._merged[key] = _Masked(wanted).merged(loaded)
        config = copy.deepcopy(self._merged[key])
        values = [thing.override for thing in things if isinstance(thing, Word)]
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        return config

    def _kind(self, roots: Things) -> type:
        if roots not in self._kinds:
            kind = OmegaConf.get_type(_Masked(()).merged([thing for thing in roots if isinstance(thing, Loaded)]))
            if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
                raise UnsureError("the command has no schema")
            self._kinds[roots] = kind
        return self._kinds[roots]

    def _word(self, line: str) -> Word:
        if line not in self._words:
            override = self._parser.parse_override(line)
            if override.is_sweep_override():
                raise UnsureError(f"{line} is several values")
            chooses = self._chooses(override)
            section = re.split(r"[.\[]", override.key_or_group, maxsplit=1)[0]
            mentions = {} if chooses else {section: mentioned([line])}
            self._words[line] = Word(override, chooses, mentions)
        return self._words[line]

    def _chooses(self, override: Override) -> bool:
        return self._repo.group_exists(override.key_or_group) and not isinstance(override.value(), dict)

    def _load(self, layer: Layer) -> Loaded:
        if layer not in self._loaded:
            result = self._loader._load_single_config(default=layer.default(), repo=self._repo)
            config = result.config
            if not isinstance(config, DictConfig):
                raise UnsureError(f"{layer.path} is a list")
            whole = dataclasses.is_dataclass(OmegaConf.get_type(config))
            plain = OmegaConf.to_container(config, resolve=False)
            assert isinstance(plain, dict)  # noqa: S101 - of a DictConfig
            mentions = {str(key): mentioned(_texts(value)) for key, value in plain.items() if key != "defaults"}
            self._loaded[layer] = Loaded(layer.path, result, whole, mentions)
        return self._loaded[layer]


class _Masked(ConfigLoaderImpl):
    """Hydra's way of merging, for some sections alone, of what is loaded already."""

    def __init__(self, wanted: Iterable[str]) -> None:
        self._wanted = set(wanted)

    def merged(self, things: Sequence[Loaded]) -> DictConfig:
        """Return what the entries of a defaults list make of the wanted sections."""
        config = self._compose_config_from_defaults_list(defaults=list(things), repo=None)
        OmegaConf.set_struct(config, True)
        return config

    def _load_single_config(self, default: Loaded, repo: None) -> ConfigResult:
        result = copy.copy(default.result)
        result.config = copy.deepcopy(result.config)  # merging changes what it takes in
        if not default.whole:
            with read_write(result.config), open_dict(result.config):
                for key in set(default.mentions) - self._wanted:
                    del result.config[key]
        return result


def mentioned(texts: Iterable[str]) -> frozenset[str]:
    """Return the words in interpolations, sections among them; `ANYTHING` or `HYDRA` where they are not enough."""
    words: set[str] = set()
    for text in texts:
        if "${" not in text:
            continue
        if re.search(r"\$\{[^}]*\$\{", text):
            words.add(ANYTHING)
        if set(re.findall(r"\$\{\s*([\w.]*)\s*:", text)) - RESOLVERS:
            words.add(HYDRA)
        words.update(re.findall(r"\w+", text))
    return frozenset(words)


def _texts(value: Any) -> Iterable[str]:
    """Return every text within a plain value."""
    if isinstance(value, dict | list):
        return [text for child in (value.values() if isinstance(value, dict) else value) for text in _texts(child)]
    return [value] if isinstance(value, str) else []
