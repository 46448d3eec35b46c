"""What a cell has to do, counted from its configuration: rows, parameters, tokens, operations.

A forward pass takes two operations a parameter and token, its backward pass twice as many: one half for the gradients
of the activations, the other for those of the weights (Kaplan et al., 2020, arXiv 2001.08361, section 2.1). Adapters
are small beside what they adapt, so that LoRA pays the first half alone, wherever its gradient passes. The scores of
attention are left out: at most a sixth for the longest images here.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vlmbench.catalogue.memory import Shape, shape_of
from vlmbench.catalogue.table import download_gib
from vlmbench.catalogue.targets import configuration
from vlmbench.config import schema
from vlmbench.weights.source import ASSETS, PACKAGE

#: Of a phantom world: shares of its patients, and images of a patient (`domains.phantom.build`).
_PHANTOM, _IMAGES = (0.6, 0.15, 0.25), 2.25
#: Tokens of a question with its template and answer, and of the prompts of CLIP; options of a closed question.
TEXT, PROMPT, OPTIONS = 128, 77, 2
#: Bytes a parameter in downloads where nothing else is known of a model.
_STORED = 2


@dataclass(frozen=True)
class Rows:
    """Examples of each split.

    Attributes:
        train: What is trained on, after `fraction` and `shots`.
        val: Of the validation split.
        test: Of the test split.
        labels: Labels of a diagnosis, 0 where there are none.
    """

    train: int
    val: int
    test: int
    labels: int = 0


def rows_of(config: schema.CellConfig) -> Rows | None:
    """Return the rows of a cell's splits as its configuration tells them; None where only reading the data would."""
    domain = config.domain
    labels = labels_of(config)
    if isinstance(domain, schema.PhantomDomainConfig):
        images = domain.patients * len(domain.modalities) * _IMAGES
        each = domain.questions_per_image if config.task.name == "vqa" else 1
        train, val, test = (round(images * share * each) for share in _PHANTOM)
    elif isinstance(domain, schema.PublishedDomainConfig) and domain.published:
        train, val, test = _published(domain)
    elif isinstance(domain, schema.TableDomainConfig) and (total := _lines(domain)):
        shares = domain.split_fractions if len(domain.split_fractions) == 3 else _PHANTOM
        train, val, test = (round(total * share) for share in shares)
    else:
        return None
    return Rows(subset(domain, train, labels), val, test, labels)


def subset(domain: schema.DomainConfig, train: int, labels: int) -> int:
    """Return how many of the train rows `fraction` and `shots` leave."""
    kept = math.ceil(train * domain.fraction)
    return min(kept, domain.shots * max(2, labels)) if domain.shots else kept


def labels_of(config: schema.CellConfig) -> int:
    """Return the number of labels of a diagnosis, as far as the configuration tells it."""
    domain = config.domain
    if config.task.name != "diagnosis":
        return 0
    if isinstance(domain, schema.PublishedDomainConfig):
        rule = domain.rule()
        return len(rule.labels or rule.columns) or 2
    if isinstance(domain, schema.FolderDomainConfig):
        return len(domain.labels or domain.label_columns) or 2
    return 2 if getattr(domain, "target", "binary") == "binary" else 5


def _published(domain: schema.PublishedDomainConfig) -> tuple[int, int, int]:
    train, val, test = (domain.published.get(split, 0) for split in ("train", "val", "test"))
    shares = domain.split_fractions if len(domain.split_fractions) == 3 else _PHANTOM
    if not test or (domain.split == "ours" and domain.ours_split == "grouped"):
        total = sum(domain.published.values())
        return round(total * shares[0]), round(total * shares[1]), round(total * shares[2])
    if not val:  # carved out of train
        val = round(train * shares[1] / max(shares[0] + shares[1], 1e-9))
        train -= val
    return train, val, test


def _lines(domain: schema.TableDomainConfig) -> int:
    path = Path(str(domain.root)).expanduser() / str(domain.table)
    if not path.is_file():
        return 0
    header = 0 if path.suffix in (".jsonl", ".json") else 1
    stat = path.stat()
    return max(0, _count(path, stat.st_size, stat.st_mtime_ns) - header)


@cache
def _count(path: Path, size: int, changed: int) -> int:
    """Return the lines of a file; its size and time of change are there for the cache."""
    with path.open("rb") as handle:
        return sum(block.count(b"\n") for block in iter(lambda: handle.read(1 << 20), b""))


@dataclass(frozen=True)
class Sized:
    """A model's sizes.

    Attributes:
        vision: Parameters of the vision tower and, in generative models, of the connector.
        text: Those of the text tower or the language model.
        connector: Those of the connector alone.
        shape: Tokens of an image.
    """

    vision: float
    text: float
    connector: float
    shape: Shape

    @property
    def total(self) -> float:
        """All parameters."""
        return self.vision + self.text


_sized: dict[tuple[str, str, str, int, tuple[tuple[str, float], ...], float], Sized | None] = {}


def sized(model: schema.ModelConfig) -> Sized | None:
    """Return a model's sizes from its YAML, a shipped or local checkpoint's header, or its download; None without."""
    given = tuple(sorted(model.parameters.items()))
    gib = 0.0 if given or model.kind == "hosted" else download_gib(model)
    key = (model.kind, model.source, model.architecture, model.image_size, given, gib)
    if key not in _sized:
        _sized[key] = _size(model, gib)
    return _sized[key]


def _size(model: schema.ModelConfig, gib: float) -> Sized | None:
    if model.kind == "hosted":
        return None
    parts: Mapping[str, float] = {part: count * 1e6 for part, count in model.parameters.items()}
    parts = parts or _stored(model.source)
    if not parts and gib:
        share = 0.05 if model.kind == "generative" else 0.6
        parameters = gib * 2**30 / _STORED
        parts = {"vision": share * parameters, "text": (1 - share) * parameters}
    if not parts:
        return None
    path = configuration(model.architecture, model.source)
    published = json.loads(path.read_text(encoding="utf-8")) if path else None
    connector = parts.get("connector", 0.0)
    text = parts.get("text", 0.0) + parts.get("language", 0.0)
    return Sized(sum(parts.values()) - text, text, connector, shape_of(model.kind, model.image_size, published))


def _stored(source: str) -> dict[str, float]:
    """Return the parameters in the safetensors of a shipped or local checkpoint, by part, from their headers alone."""
    folder = ASSETS / source.removeprefix(PACKAGE) if source.startswith(PACKAGE) else Path(source).expanduser()
    parts: dict[str, float] = {}
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        for name, shape in _header(path).items():
            part = "connector" if "projector" in name else "vision" if "vision" in name else "text"
            parts[part] = parts.get(part, 0.0) + math.prod(shape)
    return parts


def _header(path: Path) -> dict[str, list[int]]:
    """Return the shapes of a safetensors file; nothing of one that is none, which loading it will tell."""
    with path.open("rb") as handle:
        try:
            (length,) = struct.unpack("<Q", handle.read(8))
            listed: dict[str, Any] = json.loads(handle.read(min(length, 1 << 26)))
            return {name: entry["shape"] for name, entry in listed.items() if name != "__metadata__"}
        except (struct.error, ValueError, TypeError, KeyError):
            return {}
