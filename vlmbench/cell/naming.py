"""The names of many cells: what they share, data and weights, is looked up once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vlmbench.config import schema
from vlmbench.config.presence import domain_present
from vlmbench.domains.base import SPLITS, Domain, Split
from vlmbench.errors import UserError
from vlmbench.records.identity import Identities, digest, identity, relevant

T = TypeVar("T")


@dataclass(frozen=True)
class Name:
    """What a cell is called.

    Attributes:
        identity: 64 hex digits.
        folder: Its own directory.
        data: Fingerprint of the domain.
        weights: Digest of the weights.
    """

    identity: str
    folder: Path
    data: str
    weights: str


@dataclass(frozen=True)
class Data:
    """What is kept of a domain that was built to name cells.

    Attributes:
        fingerprint: Of its content.
        examples: Of each split.
        labels: Of a diagnosis, 0 where there are none.
    """

    fingerprint: str
    examples: Mapping[Split, int]
    labels: int


def name_of(config: schema.CellConfig, data: str, weights: str, known: Identities | None = None) -> Name:
    """Return a cell's name from its configuration and the content of its data and weights.

    Args:
        config: The cell.
        data: Fingerprint of the domain.
        weights: Digest of the weights.
        known: Gives the same identity, faster for many cells that share parts of their configurations.
    """
    if known is None:
        digits = identity(dataclasses.asdict(config), data=data, weights=weights)
    else:
        digits = known.of(config, data=data, weights=weights)
    return Name(digits, _folder(config, digits), data, weights)


def nameless(config: schema.CellConfig) -> Name:
    """Return where the failure of a cell is recorded whose data or weights are not as they should be.

    Its own name follows from their content, which nobody knows; this one from its configuration and where they lie.
    """
    places = [config.model.source, config.model.revision, getattr(config.domain, "root", "")]
    digits = digest({"nameless": relevant(dataclasses.asdict(config)), "places": places})
    return Name(digits, _folder(config, digits), "", "")


def _folder(config: schema.CellConfig, digits: str) -> Path:
    # Without "~", which the command line does not take in cell=... .
    return Path(config.output) / config.task.name / f"{label_of(config).replace('~', '+')}-{digits[:10]}"


def label_of(config: schema.CellConfig) -> str:
    """Return a cell's name for people: model, finetune and scope, domain, seed."""
    return f"{config.model.name}-{method_of(config.finetune)}-{config.domain.shown_name()}-s{config.seed}"


def method_of(finetune: schema.FinetuneConfig) -> str:
    """Return a method's name for people, with its scope."""
    scope = getattr(finetune, "scope", "")
    return f"{finetune.name}-{scope}" if scope else finetune.name


def name_weights(model: schema.ModelConfig, lock: str, *, bring: bool = True) -> str:
    """Return what changes when a model's weights do: a digest, or for a hosted model its address and name there.

    Args:
        model: Its configuration.
        lock: Path of the lock file.
        bring: Whether weights that are not here may be downloaded.

    Raises:
        WeightsUnavailableError: The weights are not here and cannot be fetched.
        LockError: They are not the locked ones.
    """
    from vlmbench.config.endpoint import endpoint_name

    if isinstance(model, schema.HostedModelConfig):
        return endpoint_name(model.base_url, model.source)
    from vlmbench.catalogue.sources import sources_of
    from vlmbench.weights.locate import locate_all, weights_digest
    from vlmbench.weights.lock import read_lock

    sources = sources_of(model)
    return weights_digest(sources, locate_all(sources, read_lock(lock), bring=bring))


class Namer:
    """Names cells of one grid without starting or downloading anything.

    A domain or weights that are not here are a reason, told for each cell that wants them. Configurations must not
    change while it is used: parts that are the same object in several cells are looked at once.
    """

    def __init__(self) -> None:
        self._identities = Identities()
        self._shown: dict[int, tuple[object, str]] = {}
        self._weights: dict[str, str | UserError] = {}
        self._data: dict[str, Data | UserError] = {}

    def name(self, config: schema.CellConfig) -> Name:
        """Return a cell's name.

        Raises:
            UserError: Its data or weights are not here, or not as configured.
        """
        return name_of(config, self.data(config).fingerprint, self.weights(config), self._identities)

    def data(self, config: schema.CellConfig) -> Data:
        """Return what is known of a cell's domain once it is built.

        Raises:
            UserError: The data are not here, or not as configured.
        """
        return _once(self._data, f"{config.task.name} {self._repr(config.domain)}", lambda: _data(config))

    def weights(self, config: schema.CellConfig) -> str:
        """Return the digest of a cell's weights.

        Raises:
            UserError: They are not here, or not the locked ones.
        """
        key = f"{config.lock} {self._repr(config.model)}"
        return _once(self._weights, key, lambda: name_weights(config.model, config.lock, bring=False))

    def _repr(self, part: object) -> str:
        if id(part) not in self._shown:
            self._shown[id(part)] = part, repr(part)  # kept, so that no other part comes to lie where it lay
        return self._shown[id(part)][1]


def _data(config: schema.CellConfig) -> Data:
    domain_present(config.domain)  # before what reads data is imported, which takes a second
    from vlmbench.cell.domain import build_domain

    domain: Domain = build_domain(config.domain, config.task.name)  # type: ignore[arg-type]
    return Data(domain.fingerprint, {split: len(domain.split(split)) for split in SPLITS}, len(domain.label_names))


def _once(known: dict[str, T | UserError], key: str, find: Callable[[], T]) -> T:
    if key not in known:
        try:
            known[key] = find()
        except UserError as error:
            known[key] = error
    found = known[key]
    if isinstance(found, UserError):
        raise found.with_traceback(None)  # or it grows with each cell
    return found
