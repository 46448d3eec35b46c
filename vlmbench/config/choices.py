"""Which YAML files make each point of a product: Hydra's defaults lists, without building each of them anew.

Hydra takes 12 ms for the defaults list of one point. Most options of a group are plain: a schema and their own values.
Choosing another plain option changes nothing but its own entries, so that one list serves for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.default_element import ConfigDefault, InputDefault, ResultDefault
from hydra.core.override_parser.types import Override, OverrideType


@dataclass(frozen=True)
class Layer:
    """One entry of a defaults list: a file or schema, and where its values go.

    Attributes:
        path: Of the configuration, such as `model/clip`.
        package: Where it goes, such as `model`; "" is the root.
        parent: The configuration whose defaults list names it.
        is_self: Whether it stands for the parent's own values.
        primary: Whether it is the command's own configuration.
    """

    path: str
    package: str | None
    parent: str | None
    is_self: bool
    primary: bool

    def default(self) -> ResultDefault:
        """Return it in Hydra's own form."""
        return ResultDefault(self.path, self.parent, self.package, self.is_self, self.primary)


Layers = tuple[Layer, ...]


class Choices:
    """The defaults lists of many points.

    Args:
        repo: Where Hydra reads configurations; it keeps what it has read.
        config_name: Primary configuration.
        always: Overrides of config groups that all points have.
    """

    def __init__(self, repo: IConfigRepository, config_name: str, always: Sequence[Override]) -> None:
        self._repo, self._config_name, self._always = repo, config_name, list(always)
        self._asked: dict[tuple[str, ...], Layers] = {}
        self._layers: dict[Layer, Layer] = {}
        self._plain: dict[str, bool] = {}
        self._fixed: dict[str, bool] = {}
        self._stand_ins: dict[str, Override] = {}
        self._blocks: dict[str, Layers | None] = {}

    def of(self, chosen: Sequence[Override]) -> Layers:
        """Return what a point is made of, in Hydra's order.

        Args:
            chosen: Its overrides of config groups.

        Raises:
            hydra.errors.HydraException: An option or group that is not there.
        """
        reduced, swaps = [], dict[str, Override]()
        for override in chosen:
            if self._is_plain(override):
                reduced.append(self._stand_ins.setdefault(override.key_or_group, override))
                swaps[override.key_or_group] = override
            else:
                reduced.append(override)
        layers: Layers | None = self._ask(reduced)
        for key, override in swaps.items():
            if layers is not None and _path(override) != _path(self._stand_ins[key]):
                layers = self._swapped(layers, override, reduced)
        return self._ask(chosen) if layers is None else layers

    def _ask(self, chosen: Sequence[Override]) -> Layers:
        """Let Hydra build a defaults list, once."""
        key = tuple(str(override.input_line) for override in chosen)
        if key not in self._asked:
            found = create_defaults_list(
                repo=self._repo,
                config_name=self._config_name,
                overrides_list=[*self._always, *chosen],
                prepend_hydra=True,
                skip_missing=False,
            )
            made = [Layer(str(d.config_path), d.package, d.parent, d.is_self, d.primary) for d in found.defaults]
            self._asked[key] = tuple(self._layers.setdefault(layer, layer) for layer in made)
        return self._asked[key]

    def _swapped(self, layers: Layers, override: Override, reduced: Sequence[Override]) -> Layers | None:
        """Return a list with one plain option in the place of its stand-in; None where that cannot be told."""
        key, path = override.key_or_group, _path(override)
        stand_in = self._stand_ins[key]
        if path not in self._blocks:
            self._blocks[path] = self._learnt(override, reduced)
        new, old = self._blocks[path], _block(layers, _path(stand_in))
        if new is None or old is None or not all(self._is_fixed(layer.path) for layer in layers):
            return None
        start, stop = old
        return layers[:start] + new + layers[stop:]

    def _learnt(self, override: Override, reduced: Sequence[Override]) -> Layers | None:
        """Return an option's own entries: what Hydra puts where the stand-in's were, if all else stays as it is."""
        stand_in = self._stand_ins[override.key_or_group]
        before = self._ask(reduced)
        after = self._ask([override if chosen is stand_in else chosen for chosen in reduced])
        old, new = _block(before, _path(stand_in)), _block(after, _path(override))
        if old is None or new is None:
            return None
        same = before[: old[0]] == after[: new[0]] and before[old[1] :] == after[new[1] :]
        return after[new[0] : new[1]] if same else None

    def _is_plain(self, override: Override) -> bool:
        """Whether an override chooses an option whose defaults list names schemas alone."""
        if override.type != OverrideType.CHANGE or override.package or not isinstance(override.value(), str):
            return False
        path = _path(override)
        if path not in self._plain:
            loaded = self._repo.load_config(path)
            self._plain[path] = loaded is not None and all(self._is_leaf(item) for item in loaded.defaults_list or ())
        return self._plain[path]

    def _is_leaf(self, item: InputDefault) -> bool:
        if not isinstance(item, ConfigDefault) or "${" in str(item.path):
            return False
        if item.is_self():
            return True
        loaded = self._repo.load_config(str(item.path)[1:]) if str(item.path).startswith("/") else None
        return loaded is not None and not loaded.defaults_list

    def _is_fixed(self, path: str) -> bool:
        """Whether a configuration's defaults list is what it is, whatever else is chosen."""
        if path not in self._fixed:
            loaded = self._repo.load_config(path)
            listed = loaded.defaults_list or () if loaded else ()
            self._fixed[path] = not any("${" in f"{vars(item)}" for item in listed)
        return self._fixed[path]


def _path(override: Override) -> str:
    return f"{override.key_or_group}/{override.value()}"


def _block(layers: Layers, path: str) -> tuple[int, int] | None:
    """Return where the entries of an option begin and end; None where they are nowhere or scattered."""
    places = [i for i, layer in enumerate(layers) if path in (layer.path, layer.parent)]
    if not places or places[-1] - places[0] + 1 != len(places):
        return None
    return places[0], places[-1] + 1
