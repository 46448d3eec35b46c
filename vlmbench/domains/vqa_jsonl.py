"""A folder of images with questions and answers, one JSON object a line, as a VQA domain."""

from __future__ import annotations

import json
import re
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
    read_text,
)
from vlmbench.domains.base import Domain, DomainError
from vlmbench.domains.images import FolderImages
from vlmbench.domains.splits import DEFAULT_FRACTIONS, OnLeak

YES_NO = ("yes", "no")
_NULLABLE = ("id_field", "split_field", "group_field")
_DEFAULTS = (("answer_type_field", "answer_type"), ("options_field", "options"))
# "a CT or an MRI", or "left or right": one word each, and an article on both or on neither. Two-word options
# ("white matter") and lists of three cannot be cut out of a sentence reliably and are left alone.
_WITH_ARTICLES = re.compile(r"\b(?:an?|the) ([\w/-]+) or (?:an?|the) ([\w/-]+)", re.IGNORECASE)
_WITHOUT_ARTICLES = re.compile(r"(?<!, )\b([\w/-]+) or (?!(?:an?|the|no|not|non|without)\b)([\w/-]+)", re.IGNORECASE)


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

    Args:
        name: Name of the domain.
        root: Folder that holds the file, and that image paths are relative to.
        modality: Imaging modality, one word.
        table: The file's name below `root`.
        id_field: Field of unique ids; None numbers the lines.
        image_field: Field of image paths.
        question_field: Field of questions.
        answer_field: Field of reference answers: text, a number, or true and false for yes and no.
        answer_type_field: Field that says `open` or `closed`, in any case; a line may lack it. None derives all.
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
    lines = _read_lines(path)
    attributes = dict(attribute_fields or {})
    _check_optional(lines, path, answer_type_field, options_field, attributes)
    rows: list[dict[str, Any]] = []
    raw_splits: list[str] = []
    for number, line in lines:
        place = f"{path}: line {number}"
        question = _text(line, question_field, "question_field", place)
        answer = _text(line, answer_field, "answer_field", place)
        offered = _options(line.get(options_field) if options_field else None, place)
        declared = _answer_type(line.get(answer_type_field) if answer_type_field else None, place)
        kind, options, answer = _close(question, answer, offered, declared, options_from_question, place)
        image = image_key(_text(line, image_field, "image_field", place))
        rows.append(
            {
                "id": _text(line, id_field, "id_field", place) if id_field is not None else f"line{number}",
                "image": image,
                "group": _text(line, group_field, "group_field", place) if group_field is not None else image,
                "question": question,
                "answer": answer,
                "answer_type": kind,
                "options": options,
                "attributes": _attributes(line, attributes),
            }
        )
        if split_field is not None:
            raw_splits.append(_text(line, split_field, "split_field", place))
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


def normalise_answer(text: str) -> str:
    """Return an answer in lower case, with single spaces, and without punctuation at its end: "Yes. " is "yes"."""
    return " ".join(text.lower().split()).rstrip(" .,;:!?")


def options_in_question(question: str) -> tuple[str, ...]:
    """Return the two words that a question offers ("Is it left or right?"), or nothing where that is not plain."""
    if len(re.findall(r"\bor\b", question, re.IGNORECASE)) != 1:
        return ()
    match = _WITH_ARTICLES.search(question) or _WITHOUT_ARTICLES.search(question)
    return (match[1], match[2]) if match else ()


def _close(
    question: str,
    answer: str,
    offered: tuple[str, ...],
    declared: Literal["open", "closed", ""],
    from_question: bool,
    place: str,
) -> tuple[Literal["open", "closed"], tuple[str, ...], str]:
    """Return a question's type, its options, and the answer as it stands among them."""
    plain = normalise_answer(answer)
    if declared == "open" or not (declared or offered or plain in YES_NO):
        return "open", (), answer
    options = offered or (YES_NO if plain in YES_NO else ())
    if not options and from_question:
        options = options_in_question(question)
        if plain not in map(normalise_answer, options):
            options = ()
    if not options:
        return "closed", (), answer
    for option in options:
        if normalise_answer(option) == plain:
            return "closed", options, option
    raise DomainError(f"{place}: the answer {answer!r} is none of its options {list(options)}")


def _read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    lines = []
    # Not splitlines(): a question may hold one of the rarer characters that it takes for a line's end.
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: also an integer of thousands of digits
            raise DomainError(f"{path}: line {number} is not JSON ({error}); one object a line is expected") from error
        if not isinstance(line, dict):
            raise DomainError(f"{path}: line {number} is a {type(line).__name__}; one JSON object a line is expected")
        lines.append((number, line))
    if not lines:
        raise DomainError(f"{path}: the file has no lines")
    return lines


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


def _text(line: Mapping[str, Any], field: str, argument: str, place: str) -> str:
    if field not in line:
        hint = f"; set {argument} to one of them, or to null for none" if argument in _NULLABLE else ""
        raise DomainError(
            f"{place}: no field {field!r}, which {argument} names; the fields are {', '.join(line)}{hint}"
        )
    text = _plain(line[field])
    if not text:
        raise DomainError(f"{place}: the field {field!r} must be a text or a number, not {line[field]!r}")
    return text


def _plain(value: Any) -> str:
    """Return a text, a number, or true and false (yes and no) as text without spaces around it; "" for all else."""
    if isinstance(value, bool):
        return YES_NO[0] if value else YES_NO[1]
    return str(value).strip() if isinstance(value, (str, int, float)) and value == value else ""


def _answer_type(value: Any, place: str) -> Literal["open", "closed", ""]:
    if value is None or value == "":
        return ""
    plain = str(value).strip().lower()
    if plain == "open":
        return "open"
    if plain == "closed":
        return "closed"
    raise DomainError(f"{place}: the answer type {value!r} is neither 'open' nor 'closed'")


def _options(value: Any, place: str) -> tuple[str, ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, list) or not all(map(_plain, value)):
        raise DomainError(f"{place}: the options must be a list of texts or numbers, not {value!r}")
    options = tuple(map(_plain, value))
    if len({normalise_answer(option) for option in options}) < max(2, len(options)):
        raise DomainError(f"{place}: the options {value!r} must be two or more that differ")
    return options


def _attributes(line: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str | float]:
    out: dict[str, str | float] = {}
    for attribute, field in fields.items():
        value = line.get(field)
        if value is None or value == "" or value != value:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # float() of the text, because that of an integer beyond its range is an error.
        out[attribute] = float(str(value)) if number else str(value)
    return out
