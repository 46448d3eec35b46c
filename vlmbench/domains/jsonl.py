"""Files of one JSON object a line, or of one list of them, and how a field of such an object is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmbench.domains.assemble import read_text
from vlmbench.domains.base import DomainError

_NULLABLE = ("id_field", "split_field", "group_field")


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of a file with one a line, each with the number of its line.

    Raises:
        DomainError: Not UTF-8, not JSON, not objects, or no lines.
    """
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


def read_list(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file that is one JSON list.

    Raises:
        DomainError: Not UTF-8, not JSON (cut off, for example), not a list of objects, or an empty one.
    """
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DomainError(f"{path}: not one JSON list ({error}); fetch the file again") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise DomainError(f"{path}: a JSON list of objects is expected, not {type(found).__name__}")
    if not found:
        raise DomainError(f"{path}: the list is empty")
    return found


def text_of(line: Mapping[str, Any], field: str, argument: str, place: str) -> str:
    """Return a field as text.

    Args:
        line: The object.
        field: Name of the field.
        argument: The argument that names it, for the message; "" where the layout fixes the name.
        place: File and line, for the message.

    Raises:
        DomainError: The field is missing, empty, neither text nor number, or a text that UTF-8 cannot hold.
    """
    if field not in line:
        named = f", which {argument} names" if argument else ""
        hint = f"; set {argument} to one of them, or to null for none" if argument in _NULLABLE else ""
        raise DomainError(f"{place}: no field {field!r}{named}; the fields are {', '.join(line)}{hint}")
    text = plain_text(line[field])
    if not text:
        raise DomainError(f"{place}: the field {field!r} must be a text or a number, not {line[field]!r}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DomainError(
            f"{place}: the field {field!r} holds half of a pair of surrogates, {text!r}, which is no text"
        )
    return text


def plain_text(value: Any) -> str:
    """Return a text, a number, or true and false (yes and no) as text without spaces around it; "" for all else."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).strip() if isinstance(value, (str, int, float)) and value == value else ""


def attributes_of(line: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str | float]:
    """Return the attributes that an object has; numbers as floats, all else as text.

    Args:
        line: The object.
        fields: Attribute to field.
    """
    out: dict[str, str | float] = {}
    for attribute, field in fields.items():
        value = line.get(field)
        if value is None or value == "" or value != value:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # float() of the text, because that of an integer beyond its range is an error.
        out[attribute] = float(str(value)) if number else str(value)
    return out
