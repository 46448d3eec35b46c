"""Public datasets, read in the layout in which their owners publish them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import MISSING

from vlmbench.config.schema.domain import DomainConfig
from vlmbench.config.schema.fields import number, one_of

KINDS = ("binary", "multi-class", "multi-label", "open", "closed", "multiple choice", "caption")


@dataclass
class LabelRuleConfig:
    """How the raw values of a table become labels, and how the labels are said.

    Attributes:
        column: Raw column, for a rule of one label an image.
        columns: Multi-label: label to raw column; the mapped value of each is "0" or "1".
        map: Raw value to label (to "0" or "1" with `columns`); the key "*" stands for every value that is not named.
            Keys may be of any type, and become text.
        leave_out: Raw values whose rows are left out, and counted.
        labels: The labels in the order of the scores.
        templates: Prompt templates with the placeholder `{label}`.
        label_prompts: Per label, the phrases that fill `{label}`.
        negative_templates: Multi-label: templates that say that a label is absent.
    """

    column: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    map: dict[Any, str] = field(default_factory=dict)
    leave_out: list[Any] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=lambda: ["a photo of {label}"])
    label_prompts: dict[Any, list[str]] = field(default_factory=dict)
    negative_templates: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.map = {str(raw): label for raw, label in self.map.items()}
        self.leave_out = [str(raw) for raw in self.leave_out]
        self.label_prompts = {str(label): phrases for label, phrases in self.label_prompts.items()}


@dataclass
class DownloadConfig:
    """One thing to bring of a public dataset.

    Attributes:
        source: `https://...` of one file; `doi:...` of a Zenodo, figshare or Dataverse record; `hub:owner/name` of a
            dataset repository on the hub.
        files: Patterns of the record's or repository's files that are needed; empty takes all. For
            an address, the name of its file where the address does not end in it.
        revision: Commit of the hub repository.
        checksum: `md5:...` or `sha256:...` of the file behind an address; records and the hub publish their own.
        into: Folder below `root` for what comes.
        unpack: Whether archives are unpacked, and then removed.
        gib: Size of the download in GiB.
        when: Settings of the domain for which this is needed, for example `{size: 28}`.
    """

    source: str = MISSING
    files: list[str] = field(default_factory=list)
    revision: str | None = None
    checksum: str = ""
    into: str = "."
    unpack: bool = True
    gib: float = number(0.0, 0)
    when: dict[str, Any] = field(default_factory=dict)


@dataclass
class PublishedDomainConfig(DomainConfig):
    """A public dataset in its official on-disk layout.

    Attributes:
        title: What its owners call it.
        root: Folder that holds the layout; by default below the folder that VLMBENCH_DATA names, else below `data`.
        reader: What reads the layout; a name in `vlmbench.domains.published.readers`.
        settings: Further arguments of the reader, for example `{size: 224}`.
        tasks: Tasks that it serves.
        kinds: Kinds of its questions or labels.
        split: `study` is the published split with the study's label rule; `ours` keeps patients together and has a
            validation split.
        study_split: How `split=study` is made; a name in `vlmbench.domains.published.study`.
        ours_split: Whether `split=ours` takes the `official` split of the layout (validation rows are carved out of
            train, by group, where it has none), or makes a `grouped` one of all rows.
        target: Name of the label rule; `auto` takes `study` with `split=study`, and else the first other one.
        rules: Label rules by name.
        published: Published numbers of rows by split, to compare with what was read; empty where there are none.
        group: What the groups are: patient, eye, image.
        attributes: Raw columns that are subgroup attributes, attribute to column.
        citation: Paper, with DOI or arXiv number.
        homepage: Where its owners describe it.
        access: `public` where it can be fetched without asking, `gated` where somebody has to be asked.
        how_to_get: What a user does to be given it.
        layout: Patterns below `root` that the layout is made of; each is there, or the domain is not complete.
        downloads: What `vlmbench.fetch` brings.
        notes: What a user should know of it, for example that a list is not public.
    """

    source: str = one_of("published", default="published")
    title: str = ""
    root: str = MISSING
    reader: str = MISSING
    settings: dict[str, Any] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=lambda: ["diagnosis"])
    kinds: list[str] = field(default_factory=list)
    split: str = one_of("study", "ours", default="ours")
    study_split: str = "official"
    ours_split: str = one_of("official", "grouped", default="grouped")
    target: str = "auto"
    rules: dict[str, LabelRuleConfig] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    group: str = "patient"
    attributes: dict[str, str] = field(default_factory=dict)
    citation: str = ""
    homepage: str = ""
    access: str = one_of("public", "gated", default="public")
    how_to_get: str = ""
    layout: list[str] = field(default_factory=list)
    downloads: list[DownloadConfig] = field(default_factory=list)
    notes: str = ""
    split_fractions: list[float] = field(default_factory=lambda: [0.7, 0.1, 0.2])
    split_seed: int = number(0, 0)
    on_bad_image: str = one_of("stop", "leave_out", default="stop")
    check_images: str = one_of("decode", "exists", default="exists")
    on_leak: str = one_of("raise", "report", default="raise")

    # Of the label rule that holds, unless something is set here.
    templates: list[str] = field(default_factory=list)

    def rule_name(self) -> str:
        """Return the name of the label rule that holds, "" where there are none."""
        return rule_in_force(self.target, self.split, self.rules)

    def rule(self) -> LabelRuleConfig:
        """Return the label rule that holds, with what is set for the domain in place of its own prompts.

        A label whose phrases are not set keeps those of the rule.
        """
        rule = self.rules.get(self.rule_name(), LabelRuleConfig())
        return replace(
            rule,
            templates=self.templates or rule.templates,
            label_prompts={**rule.label_prompts, **self.label_prompts},
            negative_templates=self.negative_templates or rule.negative_templates,
        )

    def variant(self) -> str:
        """Return `.study` for the study's split, and the label rule where it is not the usual one of the split.

        The study's label rule on our split is `.ours.study`, to be told from the study's split.
        """
        rule = self.rule_name()
        target = f".{rule}" if rule != rule_in_force("auto", self.split, self.rules) else ""
        if self.split == "study":
            return f".study{target}"
        return f".ours{target}" if target == ".study" else target

    @property
    def multi_label(self) -> bool:
        """Whether the label rule that holds gives several labels or none an image."""
        return bool(self.rule().columns)


def rule_in_force(target: str, split: str, rules: Iterable[str]) -> str:
    """Return the name of the label rule that holds, "" where there are none.

    Args:
        target: Its name, or `auto`.
        split: `study` or `ours`.
        rules: The names that there are, in their order.
    """
    names = list(rules)
    if target != "auto" or not names:
        return "" if target == "auto" else target
    if split == "study" and "study" in names:
        return "study"
    return next((name for name in names if name != "study"), "study")
