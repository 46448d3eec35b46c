"""A folder of images with questions and answers, one JSON object a line, as a VQA domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

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
from vlmbench.domains.jsonl import attributes_of, plain_text, read_lines, text_of
from vlmbench.domains.questions import chosen, close, lettered, normalise_answer
from vlmbench.domains.splits import DEFAULT_FRACTIONS, OnLeak

_DEFAULTS = (("answer_type_field", "answer_type"), ("options_field", "options"))


def build_vqa_jsonl(
    name: str,
    root: str,
    modality: str,
    *,
    table: str = "qa.jsonl",
    id_field: str | None = "id",
    image_field: str = "image",
    question_field: str = "question",
    answer_field: str = "answer",
    answer_type_field: str | None = "answer_type",
    options_field: str | None = "options",
    options_from_question: bool = True,
    split_field: str | None = "split",
    group_field: str | None = None,
    attribute_fields: Mapping[str, str] | None = None,
    split_fractions: Sequence[float] = DEFAULT_FRACTIONS,
    split_seed: int = 0,
    on_leak: OnLeak = "raise",
    on_bad_image: OnBadImage = "stop",
    check_images: CheckImages = "decode",
    allow_absolute: bool = False,
    licence: str = "",
) -> Domain:
    """Build a VQA domain from a folder of images and a file of one JSON object a line.

    A question is closed if its line says so or, where it does not, if it has options or its answer is yes or no. The
    options of a closed question are those of its line; else `("yes", "no")` if that is the answer; else, with
    `options_from_question`, the two words that the question itself offers ("left or right"), provided that the answer
    is one of them. What is left is closed without options, and scored by equality of normalised texts: in VQA-RAD
    "With contrast" or "Maybe". The answer of a question with options is always one of them, letter by letter.

    A line that says `choice` is multiple choice: closed, its options asked with it under letters, "A. left". Its answer
    is the text or the letter of one of them.

    Args:
        name: Name of the domain.
        root: Folder that holds the file, and that image paths are relative to.
        modality: Imaging modality, one word.
        table: The file's name below `root`.
        id_field: Field of unique ids; None numbers the lines.
        image_field: Field of image paths.
        question_field: Field of questions.
        answer_field: Field of reference answers: text, a number, or true and false for yes and no.
        answer_type_field: Field that says `open`, `closed` or `choice`; a line may lack it. None derives all.
        options_field: Field of lists of admissible answers, each as an answer; a line may lack it. None for none.
        options_from_question: Whether closed questions may get the options that they offer.
        split_field: Field of splits; None to have them made. A file without `val` rows gets them out of train.
        group_field: Field of what must not straddle splits; None takes the image.
        attribute_fields: Attribute name to field, for subgroups; a line may lack it, but not every line.
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
    lines = read_lines(path)
    attributes = dict(attribute_fields or {})
    _check_optional(lines, path, answer_type_field, options_field, attributes)
    rows: list[dict[str, Any]] = []
    raw_splits: list[str] = []
    for number, line in lines:
        place = f"{path}: line {number}"
        question = text_of(line, question_field, "question_field", place)
        answer = text_of(line, answer_field, "answer_field", place)
        offered = _options(line.get(options_field) if options_field else None, place)
        declared = _answer_type(line.get(answer_type_field) if answer_type_field else None, place)
        listed = declared == "choice"
        if declared == "choice":
            kind, options = "closed", lettered(offered, place)
            answer = chosen(answer, options, place)
        else:
            kind, options, answer = close(question, answer, offered, declared, options_from_question, place)
        image = image_key(text_of(line, image_field, "image_field", place))
        rows.append(
            {
                "id": text_of(line, id_field, "id_field", place) if id_field is not None else f"line{number}",
                "image": image,
                "group": text_of(line, group_field, "group_field", place) if group_field is not None else image,
                "question": question,
                "answer": answer,
                "answer_type": kind,
                "options": options,
                **({"listed": True} if listed else {}),
                "attributes": attributes_of(line, attributes),
            }
        )
        if split_field is not None:
            raw_splits.append(text_of(line, split_field, "split_field", place))
    check_unique([row["id"] for row in rows], path, "make them unique, or set id_field to null to number the lines")

    images = FolderImages(folder, allow_absolute=allow_absolute)
    examples, left_out = assemble(
        rows,
        [row["answer_type"] for row in rows],
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
        task="vqa",
        examples=examples,
        images=images,
        licence=licence,
        fingerprint=fingerprint(path, images, examples),
        left_out=left_out,
    )


def _check_optional(
    lines: Sequence[tuple[int, Mapping[str, Any]]],
    path: Path,
    answer_type_field: str | None,
    options_field: str | None,
    attributes: Mapping[str, str],
) -> None:
    """Check that the fields which a line may lack are in some line; under their default names they may be in none."""
    wanted = {"answer_type_field": answer_type_field, "options_field": options_field}
    wanted |= {f"attribute_fields.{name}": field for name, field in attributes.items()}
    there = dict.fromkeys(field for _, line in lines for field in line)
    for argument, field in wanted.items():
        if field is not None and field not in there and (argument, field) not in _DEFAULTS:
            raise DomainError(
                f"{path}: no line has the field {field!r}, which {argument} names; the fields are {', '.join(there)}"
            )


def _answer_type(value: Any, place: str) -> Literal["open", "closed", "choice", ""]:
    if value is None or value == "":
        return ""
    plain = str(value).strip().lower()
    if plain == "open":
        return "open"
    if plain == "closed":
        return "closed"
    if plain == "choice":
        return "choice"
    raise DomainError(f"{place}: the answer type {value!r} is none of 'open', 'closed' and 'choice'")


def _options(value: Any, place: str) -> tuple[str, ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, list) or not all(map(plain_text, value)):
        raise DomainError(f"{place}: the options must be a list of texts or numbers, not {value!r}")
    options = tuple(map(plain_text, value))
    if len({normalise_answer(option) for option in options}) < max(2, len(options)):
        raise DomainError(f"{place}: the options {value!r} must be two or more that differ")
    return options
