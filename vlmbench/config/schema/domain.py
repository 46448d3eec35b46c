"""Where the data come from: phantoms, folders, questions, captions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from vlmbench.config.schema.fields import number, one_of

CORRUPTIONS = ("noise", "blur", "contrast", "jpeg", "brightness", "resolution")
#: What is shown in the place of the images, for baselines that no picture helps; there is no more or less of it.
IN_PLACE = ("blank", "shuffled")


@dataclass
class DomainConfig:
    """One dataset of one imaging modality.

    Attributes:
        modality: A word of `config.exposure.MODALITIES`, or one of your own; several are joined by "+".
        exposure: `auto` derives it from the modality; anything else is a declaration.
        templates: Prompt templates with the placeholder `{label}`.
        label_prompts: Per label, the phrases that fill `{label}`; a label without one stands for itself. YAML and the
            command line read a bare 0 as a number, so keys may be of any type, and become text.
        negative_templates: Templates that say that a label is absent; multi-label domains need them for text prompts.
        audit_hashes: Whether the audit of the splits compares pixels too.
        fraction: Share of the train split that is used, in whole groups; a smaller share lies inside a larger one.
        fraction_seed: Decides which groups `fraction` and `shots` take.
        shots: Diagnosis: train examples of each label that are used; 0 uses all.
        corruption: What is done to the images that a cell is evaluated on; for `vlmbench.evaluate` and `zero_shot`.
            `blank` shows a grey square and `shuffled` another patient's image of the same split in the place of every
            image: the baselines of a score that need no picture. Trained with, they hold in train and validation too:
            a model that was tuned on the questions alone is a stronger baseline than one that is only asked blindly.
        severity: How much of it; nothing to `blank` and `shuffled`.
        corruption_seed: Of the noise, or of who is shown whose image.
    """

    name: str = MISSING
    source: str = one_of("phantom", "folder", "vqa_jsonl", "captions_jsonl", "published")
    modality: str = MISSING
    exposure: str = one_of("auto", "id", "ood", "unknown", default="auto")
    licence: str = ""
    templates: list[str] = field(default_factory=lambda: ["a photo of {label}"])
    label_prompts: dict[Any, list[str]] = field(default_factory=dict)
    negative_templates: list[str] = field(default_factory=list)
    audit_hashes: bool = True
    fraction: float = number(1.0, 0, 1)
    fraction_seed: int = number(0, 0)
    shots: int = number(0, 0)
    corruption: str = one_of("none", *CORRUPTIONS, *IN_PLACE, default="none")
    severity: int = number(3, 1, 5)
    corruption_seed: int = number(0, 0)

    def __post_init__(self) -> None:
        self.label_prompts = {str(label): phrases for label, phrases in self.label_prompts.items()}
        # What decides nothing makes no other cell: in a product with corruption=none every severity is the same.
        if self.corruption in ("none", *IN_PLACE):
            self.severity = 3
        if self.corruption in ("none", "blank"):
            self.corruption_seed = 0
        if self.fraction == 1 and not self.shots:
            self.fraction_seed = 0

    def shown_name(self) -> str:
        """Return the name in records and reports: `chexpert.study`, `chexpert@16shots-s1`, `chexpert~noise3`.

        Another split or label rule, a subset and a corruption are part of it, so that no summary over seeds mixes
        them up.
        """
        subset = f"@{self.shots}shots" if self.shots else f"@{100 * self.fraction:g}%" if self.fraction < 1 else ""
        if subset and self.fraction_seed:
            subset += f"-s{self.fraction_seed}"
        damage = f"~{self.corruption}" if self.corruption != "none" else ""
        if self.corruption in CORRUPTIONS:
            damage += str(self.severity)
        if damage and self.corruption_seed:
            damage += f"-s{self.corruption_seed}"
        return f"{self.name}{self.variant()}{subset}{damage}"

    def variant(self) -> str:
        """Return what tells this reading of the data from the usual one, "" where it is that."""
        return ""


@dataclass
class PhantomDomainConfig(DomainConfig):
    """Procedural images of one or, for pre-training, several modalities.

    Attributes:
        modalities: The worlds that are mixed.
        target: What a diagnosis is about.
        patients: Number of patients over all splits and, in a mixture, for each modality.
        world_seed: Another seed is another world: other patients, other images.
        image_size: Side of the square images in pixels.
        questions_per_image: For task vqa.
    """

    source: str = one_of("phantom", default="phantom")
    modalities: list[str] = MISSING
    target: str = one_of("binary", "multiclass", "multilabel", default="binary")
    patients: int = number(300, 10)
    world_seed: int = number(1, 0)
    image_size: int = number(96, 32, 1024)
    questions_per_image: int = number(2, 1, 20)


@dataclass
class TableDomainConfig(DomainConfig):
    """What both kinds of a user's own data share.

    Attributes:
        root: Folder that holds the table and the images.
        table: File name of the table within `root`.
        split_fractions: Shares of train, val and test where the table gives no split.
        on_bad_image: `stop` (default), or `leave_out` and record.
        check_images: `decode` opens every image before anything runs; `exists` only looks for the file.
        on_leak: What a group in two given splits means: `raise` an error, or `report` it in the audit.
    """

    root: str = MISSING
    table: str = MISSING
    split_fractions: list[float] = field(default_factory=lambda: [0.6, 0.15, 0.25])
    split_seed: int = number(0, 0)
    on_bad_image: str = one_of("stop", "leave_out", default="stop")
    check_images: str = one_of("decode", "exists", default="decode")
    on_leak: str = one_of("raise", "report", default="raise")


@dataclass
class FolderDomainConfig(TableDomainConfig):
    """A folder of images with a table of labels; `columns` names are the user's own.

    Attributes:
        labels: The classes in the order of the scores; empty takes what the table holds, sorted.
        label_map: Raw value to label, for tables that hold codes; keys of any type, as in `label_prompts`.
        attribute_columns: Attribute (age, sex, ...) to column.
        label_separator: Multi-label: what separates the labels within one column.
        label_columns: Multi-label: one column of 0 and 1 for each label, instead.
        id_column: Column of unique ids; null takes the image path.
    """

    source: str = one_of("folder", default="folder")
    table: str = "labels.csv"
    image_column: str = "image"
    label_column: str = "label"
    split_column: str | None = "split"
    group_column: str | None = "patient_id"
    id_column: str | None = None
    attribute_columns: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    label_map: dict[Any, str] = field(default_factory=dict)
    drop_unmapped: bool = False
    multi_label: bool = False
    label_separator: str = "|"
    label_columns: list[str] = field(default_factory=list)
    negative_templates: list[str] = field(default_factory=lambda: ["a photo without {label}"])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.label_map = {str(raw): label for raw, label in self.label_map.items()}


@dataclass
class VqaJsonlDomainConfig(TableDomainConfig):
    """A folder of images with one question a line in JSON; the field names are the user's own."""

    source: str = one_of("vqa_jsonl", default="vqa_jsonl")
    table: str = "qa.jsonl"
    id_field: str | None = "id"
    image_field: str = "image"
    question_field: str = "question"
    answer_field: str = "answer"
    answer_type_field: str | None = "answer_type"
    options_field: str | None = "options"
    split_field: str | None = "split"
    group_field: str | None = None
    attribute_fields: dict[str, str] = field(default_factory=dict)


@dataclass
class CaptionsJsonlDomainConfig(TableDomainConfig):
    """A folder of images with one caption a line, in JSON or a table; the field names are the user's own.

    Attributes:
        split_field: Field of splits; where no line has it, splits are made.
        group_field: Field of what must not straddle splits, a patient; where no line has it, the image.
    """

    source: str = one_of("captions_jsonl", default="captions_jsonl")
    table: str = "captions.jsonl"
    id_field: str | None = None
    image_field: str = "image"
    caption_field: str = "caption"
    split_field: str | None = "split"
    group_field: str | None = "group"
    attribute_fields: dict[str, str] = field(default_factory=dict)
