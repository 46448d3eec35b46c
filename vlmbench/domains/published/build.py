"""From an official layout to a domain: label rule, split, checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from vlmbench.domains.assemble import CheckImages, OnBadImage, assemble, fingerprint
from vlmbench.domains.base import Domain, DomainError, Prompts, TaskName
from vlmbench.domains.prompts import build_prompts
from vlmbench.domains.published.layout import CAPTION, QUESTION
from vlmbench.domains.published.readers import read_layout
from vlmbench.domains.published.rules import check_rule, one_label, several_labels
from vlmbench.domains.published.study import study_split
from vlmbench.domains.splits import OnLeak
from vlmbench.domains.tables import MISSING


def build_published(
    name: str,
    root: str,
    modality: str,
    task: TaskName,
    *,
    reader: str,
    settings: Mapping[str, Any],
    split: Literal["study", "ours"],
    study: str,
    ours: Literal["official", "grouped"],
    rule: Mapping[str, Any],
    attributes: Mapping[str, str],
    split_fractions: Sequence[float],
    split_seed: int,
    on_leak: OnLeak = "raise",
    on_bad_image: OnBadImage = "stop",
    check_images: CheckImages = "exists",
    licence: str = "",
) -> Domain:
    """Build a domain of a public dataset.

    Args:
        name: Name of the domain.
        root: Folder that holds the official layout.
        modality: Imaging modality.
        task: What the examples are built for.
        reader: What reads the layout.
        settings: Further arguments of the reader.
        split: The study's split, or ours.
        study: How the study's split is made.
        ours: Whether ours is the official one, completed, or one that is made of all rows by group.
        rule: Diagnosis: the fields of a label rule (`config.schema.LabelRuleConfig`); unused otherwise.
        attributes: Subgroup attribute to raw column. A column of numbers alone gives floats.
        split_fractions: As `splits.make_splits` takes them.
        split_seed: As `splits.make_splits` takes it.
        on_leak: What to do with groups in several given splits; the study's split is always reported, never refused.
        on_bad_image: What to do with missing and broken images.
        check_images: Whether images are decoded, or only looked for.
        licence: As its owners state it.

    Raises:
        DomainError: The layout, a label, an image or the splits are not as they must be.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DomainError(f"{folder}: no such folder; set domain.root to the folder that holds {name}")
    order: tuple[str, ...] = ()
    multi_label, prompts = False, Prompts({})
    if task == "diagnosis":
        check_rule(rule["column"], rule["columns"], rule["map"], rule["leave_out"], rule["labels"])
        order, multi_label = tuple(rule["labels"]), bool(rule["columns"])
        prompts = build_prompts(
            order, rule["label_prompts"], rule["templates"], rule["negative_templates"], multi_label=multi_label
        )
    layout = read_layout(reader, folder, settings)
    try:
        labels, left_out = _labels(layout.frame, task, rule)
        frame = layout.frame.loc[labels.index]
        raw_splits: list[str] | None
        origin = "the official split" if ours == "official" else "made by group"
        if split == "study":
            made = study_split(study, frame, labels, folder)
            kept = made.names != ""
            if not kept.any():
                raise DomainError("there is no official split; set domain.split=ours")
            if not kept.all():
                left_out.append({"image": "", "reason": made.left_out, "examples": int((~kept).sum())})
            frame, labels, raw_splits = frame[kept], labels[kept], list(made.names[kept])
            origin = made.origin
        else:
            if ours == "official" and not (frame["split"] != "").any():
                raise DomainError("there is no official split; set domain.ours_split=grouped")
            raw_splits = list(frame["split"]) if ours == "official" else None
        examples, bad = assemble(
            _rows(frame, labels, order, task, attributes),
            list(labels),
            raw_splits,
            layout.images,
            folder,
            split_fractions=split_fractions,
            split_seed=split_seed,
            on_leak="report" if split == "study" else on_leak,
            on_bad_image=on_bad_image,
            check_images=check_images,
            train_needs=order,
        )
    except DomainError as error:
        raise DomainError(str(error) if str(error).startswith(str(folder)) else f"{folder}: {error}") from error
    return Domain(
        name=name,
        modality=modality,
        task=task,
        examples=examples,
        images=layout.images,
        label_names=order,
        multi_label=multi_label,
        prompts=prompts,
        licence=licence,
        fingerprint=fingerprint(None, layout.images, examples, order),
        left_out=[*layout.left_out, *left_out, *bad],
        origin=origin,
    )


def _labels(frame: pd.DataFrame, task: TaskName, rule: Mapping[str, Any]) -> tuple[pd.Series, list[dict[str, Any]]]:
    """Return what splits are stratified by, for the rows that are kept, and what was left out."""
    if task == "vqa":
        return frame["answer_type"], []
    if task == "pretrain":
        return pd.Series("", index=frame.index), []
    if rule["columns"]:
        return several_labels(frame, rule["columns"], rule["map"]), []
    labels, dropped = one_label(frame, rule["column"], rule["map"], rule["leave_out"], rule["labels"])
    return labels, [
        {"image": "", "reason": f"{rule['column']} is {raw!r}", "examples": count} for raw, count in dropped.items()
    ]


def _rows(
    frame: pd.DataFrame, labels: pd.Series, order: Sequence[str], task: TaskName, attributes: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the arguments of `Example`, without `split`."""
    number = {label: i for i, label in enumerate(order)}
    known = _attributes(frame, attributes)
    rows: list[dict[str, Any]] = [
        {"id": key, "image": image, "group": group, "attributes": some}
        for key, image, group, some in zip(
            frame["id"].tolist(), frame["image"].tolist(), frame["group"].tolist(), known, strict=True
        )
    ]
    if task == "diagnosis":
        for row, carried in zip(rows, labels, strict=True):
            row["labels"] = tuple(sorted(number[label] for label in carried))
    elif task == "vqa":
        for key in QUESTION:
            for row, value in zip(rows, frame[key], strict=True):
                row[key] = value
        for row in rows:
            if row["answer_type"] == "choice":
                row["answer_type"], row["listed"] = "closed", True
    else:
        for row, caption in zip(rows, frame[CAPTION], strict=True):
            row["caption"] = caption
    return rows


def _attributes(frame: pd.DataFrame, columns: Mapping[str, str]) -> list[dict[str, str | float]]:
    out: list[dict[str, str | float]] = [{} for _ in range(len(frame))]
    for attribute, column in columns.items():
        if column not in frame.columns:
            raise DomainError(f"domain.attributes names the column {column!r}; there are {', '.join(frame.columns)}")
        texts = frame[column]
        filled = ~texts.str.lower().isin(MISSING)
        numbers = pd.to_numeric(texts.where(filled), errors="coerce")
        numeric = bool(numbers[filled].notna().all())
        values = numbers.astype(float) if numeric else texts
        for row, keep, value in zip(out, filled.tolist(), values.tolist(), strict=True):
            if keep:
                row[attribute] = value
    return out
