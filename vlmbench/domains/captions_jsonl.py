"""A folder of images with captions, one a line in JSON or a table, as a domain for pre-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from vlmbench.domains.jsonl import attributes_of, read_lines, text_of
from vlmbench.domains.splits import DEFAULT_FRACTIONS, OnLeak
from vlmbench.domains.tables import read_table

#: Fields that a user who has none need not switch off.
_DEFAULTS = {"split_field": "split", "group_field": "group"}


def build_captions_jsonl(
    name: str,
    root: str,
    modality: str,
    *,
    table: str = "captions.jsonl",
    id_field: str | None = None,
    image_field: str = "image",
    caption_field: str = "caption",
    split_field: str | None = "split",
    group_field: str | None = "group",
    attribute_fields: Mapping[str, str] | None = None,
    split_fractions: Sequence[float] = DEFAULT_FRACTIONS,
    split_seed: int = 0,
    on_leak: OnLeak = "raise",
    on_bad_image: OnBadImage = "stop",
    check_images: CheckImages = "decode",
    allow_absolute: bool = False,
    licence: str = "",
) -> Domain:
    """Build a domain of captions.

    An image may have several captions, a line each.

    Args:
        name: Name of the domain.
        root: Folder that holds the table, and that image paths are relative to.
        modality: Imaging modality, or several joined by "+".
        table: File below `root`: `.csv` or `.tsv` with a header, anything else one JSON object a line.
        id_field: Field of unique ids; None numbers the lines.
        image_field: Field of image paths.
        caption_field: Field of captions.
        split_field: Field of splits; None to have them made, as they are where no line has the default one. A file
            without `val` rows gets them out of train.
        group_field: Field of what must not straddle splits; None takes the image, as does the default one in no line.
        attribute_fields: Attribute name to field, for subgroups; a line may lack it.
        split_fractions: As `make_splits` takes them.
        split_seed: As `make_splits` takes it.
        on_leak: What to do with groups in several given splits: `raise`, or `report` and leave them to the audit.
        on_bad_image: What to do with missing and broken images: `stop`, or `leave_out` and go on.
        check_images: `decode` opens every image now; `exists` only looks whether the file is there.
        allow_absolute: Also take image paths outside `root`.
        licence: As its owners state it.

    Raises:
        DomainError: The folder, file, a line, a field, an image or the splits are not as they must be.
    """
    folder, path = find_table(root, table)
    lines = _lines(path)
    there = {field for _, line in lines for field in line}
    split_field = _unless_absent("split_field", split_field, there)
    group_field = _unless_absent("group_field", group_field, there)
    attributes = dict(attribute_fields or {})
    for attribute, field in attributes.items():
        if field not in there:
            raise DomainError(
                f"{path}: no line has the field {field!r}, which attribute_fields.{attribute} names; the fields are "
                f"{', '.join(lines[0][1])}"
            )
    rows: list[dict[str, Any]] = []
    raw_splits: list[str] = []
    for place, line in lines:
        image = image_key(text_of(line, image_field, "image_field", place))
        rows.append(
            {
                "id": text_of(line, id_field, "id_field", place) if id_field is not None else _number(place),
                "image": image,
                "group": text_of(line, group_field, "group_field", place) if group_field is not None else image,
                "caption": text_of(line, caption_field, "caption_field", place),
                "attributes": attributes_of(line, attributes),
            }
        )
        if split_field is not None:
            raw_splits.append(text_of(line, split_field, "split_field", place))
    check_unique([row["id"] for row in rows], path, "make them unique, or set id_field to null to number the lines")
    images = FolderImages(folder, allow_absolute=allow_absolute)
    examples, left_out = assemble(
        rows,
        [""] * len(rows),
        raw_splits if split_field is not None else None,
        images,
        path,
        split_fractions=split_fractions,
        split_seed=split_seed,
        on_leak=on_leak,
        on_bad_image=on_bad_image,
        check_images=check_images,
    )
    return Domain(
        name=name,
        modality=modality,
        task="pretrain",
        examples=examples,
        images=images,
        licence=licence,
        fingerprint=fingerprint(path, images, examples),
        left_out=left_out,
    )


def _lines(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Return each line with its place, "FILE: line 3" or, of a table, "FILE: row 3"."""
    if path.suffix.lower() in (".csv", ".tsv"):
        frame = read_table(path)
        entries = [dict(zip(frame.columns, values, strict=True)) for values in frame.to_numpy().tolist()]
        return [(f"{path}: row {number}", entry) for number, entry in zip(frame.index, entries, strict=True)]
    return [(f"{path}: line {number}", line) for number, line in read_lines(path)]


def _number(place: str) -> str:
    return place.rpartition(": ")[2].replace(" ", "")


def _unless_absent(argument: str, field: str | None, there: set[str]) -> str | None:
    return None if field == _DEFAULTS[argument] and field not in there else field
