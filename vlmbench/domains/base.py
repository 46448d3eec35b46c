"""What every domain gives, whatever it is read from: examples, images, prompts and a fingerprint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from PIL import Image

from vlmbench.errors import UserError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
TaskName = Literal["diagnosis", "vqa", "pretrain"]


class DomainError(UserError):
    """A domain cannot be built as configured; the message says what, where and what to do."""


class ImageError(Exception):
    """One image is missing or cannot be decoded.

    Args:
        key: The image's key or path, as a user would look for it.
        reason: What went wrong, in a few words.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        """Let it pass from one process to another."""
        return type(self), (self.key, self.reason)


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a domain: an image and what is asked or known of it.

    Attributes:
        id: Unique within the domain.
        image: Key that `ImageSource.load` takes. Several examples may share an image.
        group: The unit that must not straddle splits and that is resampled in a bootstrap: a patient.
        split: `train`, `val` or `test`.
        labels: Diagnosis: indices into `Domain.label_names`; exactly one unless the domain is multi-label.
        question: VQA: the question, without any prompt around it.
        answer: VQA: the reference answer.
        answer_type: VQA: `open`, or `closed` where `options` holds the admissible answers.
        options: VQA: the admissible answers of a closed question, in a fixed order.
        listed: VQA: whether the options are asked with the question; each then begins with its letter, as in "B. left",
            which alone is an answer too.
        caption: Pre-training: a sentence that describes the image.
        attributes: Subgroup attributes such as `age` and `sex`; an absent one is not a key.
    """

    id: str
    image: str
    group: str
    split: Split
    labels: tuple[int, ...] = ()
    question: str = ""
    answer: str = ""
    answer_type: Literal["open", "closed", ""] = ""
    options: tuple[str, ...] = ()
    listed: bool = False
    caption: str = ""
    attributes: Mapping[str, str | float] = field(default_factory=dict)


class ImageSource(Protocol):
    """Where a domain's pixels come from."""

    def load(self, key: str) -> Image.Image:
        """Return the image as 8-bit RGB.

        Raises:
            ImageError: The image is missing or cannot be decoded.
        """
        ...


@runtime_checkable
class StoredImages(ImageSource, Protocol):
    """Images that are kept in files, which can be looked for and told apart without being decoded."""

    @property
    def where(self) -> str:
        """Where the files are, for messages."""
        ...

    def size(self, key: str) -> int:
        """Return the stored image's size in bytes, the same wherever the files lie.

        Raises:
            ImageError: The image is missing.
        """
        ...

    def stamp(self, key: str) -> str:
        """Return what changes on this machine when the stored image does, without reading it: path, size, time.

        Raises:
            ImageError: The image is missing.
        """
        ...

    def digest(self, key: str) -> bytes:
        """Return the SHA-256 (32 bytes) of what `load` decodes: the stored bytes, and which part of them is meant.

        Raises:
            ImageError: The image is missing or cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Prompts:
    """Text prompts of a diagnosis domain, for classifiers made of text.

    Attributes:
        positive: Per label, the complete prompts that say it is present; ensembled by averaging embeddings.
        negative: Per label, the complete prompts that say it is absent; used by multi-label domains alone.
        phrases: Per label, the ways of saying it, for prompts whose other words are learned.
    """

    positive: Mapping[str, tuple[str, ...]]
    negative: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Domain:
    """A dataset of one imaging modality, ready for one task.

    Attributes:
        name: As in the config group `domain`.
        modality: Imaging modality in the word by which models declare it; several, joined by "+", where they are mixed.
        task: The task that `examples` were built for.
        examples: All splits, in a fixed order.
        images: Where the pixels come from.
        label_names: Diagnosis: the classes, in the order of the scores.
        multi_label: Diagnosis: whether an example may carry several labels or none.
        prompts: Diagnosis: class prompts.
        licence: As its owners state it.
        fingerprint: Hex SHA-256 of what the examples and images are made of; changes when any of them does.
        left_out: Examples dropped by choice, as `{"image": ..., "reason": ..., "examples": ...}`.
        audit: Overlap between splits, as `audit.audit` returns it.
        origin: Where the splits come from, in one sentence; "" where the table gives them or they are made.
        whole: Where the training split is a part of one: the domain with all of it, of which its images are encoded.
    """

    name: str
    modality: str
    task: TaskName
    examples: Sequence[Example]
    images: ImageSource
    label_names: tuple[str, ...] = ()
    multi_label: bool = False
    prompts: Prompts = field(default_factory=lambda: Prompts({}))
    licence: str = ""
    fingerprint: str = ""
    left_out: Sequence[Mapping[str, Any]] = ()
    audit: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""
    whole: Domain | None = None

    def split(self, name: Split) -> list[Example]:
        """Return the examples of one split, in the domain's order."""
        return [example for example in self.examples if example.split == name]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return, per split, the numbers of examples, images, groups and of examples by label or answer type."""
        out: dict[str, dict[str, int]] = {}
        for split in SPLITS:
            rows = self.split(split)
            kinds = Counter(f"label:{self.label_names[i]}" for row in rows for i in row.labels) or Counter(
                f"type:{row.answer_type}" for row in rows if row.answer_type
            )
            out[split] = {
                "examples": len(rows),
                "images": len({row.image for row in rows}),
                "groups": len({row.group for row in rows}),
                **dict(sorted(kinds.items())),
            }
        return out
