"""Templates of prompts: which placeholders they may have, and which they must."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

#: Field of the task to the placeholders that are filled in, and those without which nothing would be asked.
VQA_PROMPTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prompt_open": (("question",), ("question",)),
    "prompt_closed": (("question", "options"), ("question",)),
    "prompt_choice": (("question", "choices"), ("question", "choices")),
}


def prompt_fault(template: str, known: tuple[str, ...], needed: tuple[str, ...]) -> str:
    """Return what is wrong with a template, "" if nothing is.

    Args:
        template: With placeholders in braces; a brace that is meant is doubled.
        known: Placeholders that are filled in.
        needed: Those that must be there.
    """
    try:
        there = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        return f"is no template ({error}); double a brace that is meant as one"
    for name in there:
        if name not in known:
            return f"has the placeholder {{{name}}}; there are {', '.join(f'{{{one}}}' for one in known)}"
    missing = [name for name in needed if name not in there]
    return f"lacks the placeholder {{{missing[0]}}}" if missing else ""
