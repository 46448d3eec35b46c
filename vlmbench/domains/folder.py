"""A folder of images with a table of labels, as a diagnosis domain."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vlmbench.domains.assemble import (
    CheckImages,
    OnBadImage,
    assemble,
    check_unique,
    find_table,
    fingerprint,
    image_key,
)
from vlmbench.domains.base import Domain, DomainError
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.prompts import DEFAULT_NEGATIVE_TEMPLATES, DEFAULT_TEMPLATES, build_prompts
from vlmbench.domains.splits import DEFAULT_FRACTIONS, OnLeak
from vlmbench.domains.tables import MISSING, check_columns, check_filled, read_table

log = logging.getLogger(__name__)

_FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def build_folder(
    name: str,
    root: str,
    modality: str,
    *,
    table: str = "labels.csv",
    image_column: str = "image",
    label_column: str = "label",
    split_column: str | None = "split",
    group_column: str | None = "patient_id",
    id_column: str | None = None,
    attribute_columns: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    drop_unmapped: bool = False,
    labels: Sequence[str] | None = None,
    multi_label: bool = False,
    label_separator: str = "|",
    label_columns: Sequence[str] | None = None,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
    label_prompts: Mapping[str, Sequence[str]] | None = None,
    negative_templates: Sequence[str] = DEFAULT_NEGATIVE_TEMPLATES,
    split_fractions: Sequence[float] = DEFAULT_FRACTIONS,
    split_seed: int = 0,
    on_leak: OnLeak = "raise",
    on_bad_image: OnBadImage = "stop",
    check_images: CheckImages = "decode",
    allow_absolute: bool = False,
    licence: str = "",
) -> Domain:
    """Build a diagnosis domain from a folder of images and a CSV or TSV table with a row an image.

    Args:
        name: Name of the domain.
        root: Folder that holds the table, and that image paths are relative to.
        modality: Imaging modality, one word.
        table: The table's name below `root`; commas, semicolons and tabs are told apart by the header.
        image_column: Column of image paths; `scan.dcm#frame=3` names a frame.
        label_column: Column of labels; unused with `label_columns`.
        split_column: Column of splits; None to have them made. A table without `val` rows gets them out of train.
        group_column: Column of what must not straddle splits, a patient as a rule; None makes each image a group.
        id_column: Column of unique ids; None takes the image path.
        attribute_columns: Attribute name to column, for subgroups. A column of numbers alone gives floats.
        label_map: Raw value to label; a row with another raw value is an error. With `label_columns`, to "0" or "1".
        drop_unmapped: Leave rows out whose raw value `label_map` lacks.
        labels: The classes in the order of the scores; sorted where None.
        multi_label: Whether a row may carry several labels or none.
        label_separator: Between the labels of one entry, in a multi-label domain.
        label_columns: Multi-label: the columns that hold 0 or 1, one a label, named as the label.
        templates: Prompts, as `build_prompts` takes them.
        label_prompts: Per label, the phrases that `templates` take; its own name where absent.
        negative_templates: Prompts of absence, for multi-label domains.
        split_fractions: As `make_splits` takes them.
        split_seed: As `make_splits` takes it.
        on_leak: What to do with groups in several given splits: `raise`, or `report` and leave them to the audit.
        on_bad_image: What to do with missing and broken images: `stop`, or `leave_out` and go on.
        check_images: `decode` opens every image now; `exists` only looks whether the file is there.
        allow_absolute: Also take image paths outside `root`.
        licence: As its owners state it.

    Raises:
        DomainError: The folder, table, a column, an entry, an image or the splits are not as they must be.
    """
    folder, path = find_table(root, table)
    frame = read_table(path)
    mapping = {str(raw): str(label) for raw, label in label_map.items()} if label_map is not None else None
    columns = [str(column) for column in label_columns] if label_columns else []
    if columns and not multi_label:
        raise DomainError(f"label_columns={columns} is for a multi-label domain; set multi_label or use label_column")
    attributes = dict(attribute_columns or {})
    wanted = {"image_column": image_column, "split_column": split_column, "group_column": group_column}
    wanted |= {"id_column": id_column} | {f"attribute_columns.{key}": column for key, column in attributes.items()}
    wanted |= {f"label_columns[{i}]": c for i, c in enumerate(columns)} or {"label_column": label_column}
    check_columns(path, frame, wanted)
    for needed in (image_column, split_column, group_column, id_column):
        if needed is not None:
            check_filled(path, frame, needed)

    dropped: dict[str, int] = {}
    if columns:
        found = _labels_of_columns(path, frame, columns, mapping)
    else:
        separator = label_separator if multi_label else None
        found, dropped = _labels_of_column(path, frame[label_column], mapping, drop_unmapped, separator)
        frame = frame.loc[found.index]
    order = _order(path, found, labels or columns, multi_label)
    # Before images are read, which takes minutes to hours on a large set: a template is mended in seconds.
    prompts = build_prompts(order, label_prompts, templates, negative_templates, multi_label=multi_label)
    images = FolderImages(folder, allow_absolute=allow_absolute)

    keys = [image_key(text) for text in frame[image_column]]
    ids = list(frame[id_column]) if id_column is not None else keys
    check_unique(ids, path, "make them unique" if id_column else "list each image once, or name an id_column")
    if group_column is None:
        log.warning("%s: no group column, so each image is its own group; images of one patient may straddle.", path)
    groups = list(frame[group_column]) if group_column is not None else keys
    known = _attributes(frame, attributes)
    rows: list[dict[str, Any]] = [
        {
            "id": ids[i],
            "image": keys[i],
            "group": groups[i],
            "labels": tuple(sorted(order.index(label) for label in carried)),
            "attributes": known[i],
        }
        for i, carried in enumerate(found)
    ]
    examples, left_out = assemble(
        rows,
        list(found),
        list(frame[split_column]) if split_column is not None else None,
        images,
        path,
        split_fractions=split_fractions,
        split_seed=split_seed,
        on_leak=on_leak,
        on_bad_image=on_bad_image,
        check_images=check_images,
        train_needs=order,
    )
    return Domain(
        name=name,
        modality=modality,
        task="diagnosis",
        examples=examples,
        images=images,
        label_names=order,
        multi_label=multi_label,
        prompts=prompts,
        licence=licence,
        fingerprint=fingerprint(path, images, examples, order),
        left_out=left_out
        + [
            {"image": "", "reason": f"label {raw!r} is not in label_map", "examples": count}
            for raw, count in dropped.items()
        ],
    )


def _labels_of_column(
    path: Path, column: pd.Series, mapping: Mapping[str, str] | None, drop_unmapped: bool, separator: str | None
) -> tuple[pd.Series, dict[str, int]]:
    """Return per row the tuple of its labels, and how many rows were dropped by unmapped value."""
    carried: dict[int, tuple[str, ...]] = {}
    unmapped: Counter[str] = Counter()
    missing: list[int] = []
    for row, entry in zip(column.index.tolist(), column, strict=True):
        parts = [part.strip() for part in entry.split(separator) if part.strip()] if separator else [entry]
        strange = [part for part in parts if mapping is not None and part not in mapping]
        if mapping is None and any(part.lower() in MISSING for part in parts):
            missing.append(row)
        elif strange:
            unmapped.update(strange[:1])
        else:
            carried[row] = tuple(dict.fromkeys(mapping[part] if mapping is not None else part for part in parts))
    if missing:
        raise DomainError(
            f"{path}: no label in column {column.name!r} in {len(missing):,} rows, first in row {missing[0]}; "
            "fill them in, or map the ones to keep with label_map and set drop_unmapped"
        )
    if unmapped and not drop_unmapped:
        shown = ", ".join(f"{raw!r} ({count} rows)" for raw, count in unmapped.most_common(10))
        keys = list(mapping or ())
        hint = " (YAML reads a bare yes or no as True or False: quote it)" if {"True", "False"} & set(keys) else ""
        raise DomainError(
            f"{path}: column {column.name!r} has values that label_map lacks: {shown}; it maps "
            f"{', '.join(map(repr, keys))}{hint}. Add them, or set drop_unmapped to leave their rows out"
        )
    return pd.Series(carried, dtype=object), dict(unmapped)


def _labels_of_columns(
    path: Path, frame: pd.DataFrame, columns: Sequence[str], mapping: Mapping[str, str] | None
) -> pd.Series:
    """Return per row the tuple of the columns that hold a 1."""
    flags: dict[str, list[bool]] = {}
    for column in columns:
        raw = frame[column] if mapping is None else frame[column].map(lambda entry: mapping.get(entry, entry))
        strange = Counter(entry for entry in raw if entry.lower() not in _FLAGS)
        if strange:
            shown = ", ".join(f"{entry!r} ({count} rows)" for entry, count in strange.most_common(10))
            raise DomainError(
                f"{path}: column {column!r} must hold 0 or 1, not {shown}; label_map can map these to 0 or 1"
            )
        flags[column] = [_FLAGS[entry.lower()] for entry in raw]
    carried = [tuple(c for c in columns if flags[c][i]) for i in range(len(frame))]
    return pd.Series(carried, index=frame.index, dtype=object)


def _order(path: Path, found: pd.Series, labels: Sequence[str] | None, multi_label: bool) -> tuple[str, ...]:
    present = {label for carried in found for label in carried}
    order = tuple(str(label) for label in labels) if labels else tuple(sorted(present))
    unlisted = sorted(present - set(order))
    if unlisted:
        raise DomainError(f"{path}: labels {unlisted} occur in the table, but labels lists {list(order)}")
    if len(set(order)) < len(order):
        raise DomainError(f"{path}: labels lists a class twice: {list(order)}")
    if len(order) < (1 if multi_label else 2):
        raise DomainError(
            f"{path}: {len(found):,} rows, and the only labels are {sorted(present)}; diagnosis needs two classes"
        )
    return order


def _attributes(frame: pd.DataFrame, columns: Mapping[str, str]) -> list[dict[str, str | float]]:
    out: list[dict[str, str | float]] = [{} for _ in range(len(frame))]
    for attribute, column in columns.items():
        filled = ~frame[column].str.lower().isin(MISSING)
        numbers = pd.to_numeric(frame[column].where(filled), errors="coerce")
        numeric = bool(numbers[filled].notna().all())
        for i, (keep, text, number) in enumerate(zip(filled, frame[column], numbers, strict=True)):
            if keep:
                out[i][attribute] = float(number) if numeric else text
    return out
