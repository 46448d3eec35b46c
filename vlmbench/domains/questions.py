"""What kind of question a text is: open, closed with its admissible answers, or multiple choice with letters."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Literal

from vlmbench.domains.base import DomainError

YES_NO = ("yes", "no")
# "a CT or an MRI", or "left or right": one word each, and an article on both or on neither. Two-word options
# ("white matter"), lists of three, and what begins anew after the "or" ("on the left or on the right", "or is it")
# cannot be cut out of a sentence reliably and are left alone.
_NO_OPTION = (
    "an?|the|no|not|non|without|with|in|on|at|of|from|to|by|for"
    "|is|are|was|were|do|does|did|has|have|can|it|they|there|this|that"
)
_WITH_ARTICLES = re.compile(r"\b(?:an?|the) ([\w/-]+) or (?:an?|the) ([\w/-]+)", re.IGNORECASE)
_WITHOUT_ARTICLES = re.compile(rf"(?<!, )\b([\w/-]+) or (?!(?:{_NO_OPTION})\b)([\w/-]+)", re.IGNORECASE)
#: An option that begins with a letter of its own, as in "A:left", "(B) right" or "C. both".
_LETTERED = re.compile(r"\(?([A-Za-z])\s?[:.)]\s*(.*)", re.DOTALL)


def normalise_answer(text: str) -> str:
    """Return an answer in lower case, with single spaces, and without punctuation at its end: "Yes. " is "yes"."""
    return " ".join(text.lower().split()).rstrip(" .,;:!?")


def options_in_question(question: str) -> tuple[str, ...]:
    """Return the two words that a question offers ("Is it left or right?"), or nothing where that is not plain."""
    if len(re.findall(r"\bor\b", question, re.IGNORECASE)) != 1:
        return ()
    match = _WITH_ARTICLES.search(question) or _WITHOUT_ARTICLES.search(question)
    return (match[1], match[2]) if match else ()


def lettered(options: Sequence[str], place: str) -> tuple[str, ...]:
    """Return the options of a multiple choice question as they are listed: "A. left", "B. right".

    Args:
        options: As the data give them. Where all carry these very letters ("A: left", "(B) right", "c. up"), those
            are taken off first; one that is nothing but its letter ("B:") is then empty.
        place: Where they stand, for messages.

    Raises:
        DomainError: Fewer than two options, an empty one, or more than there are letters.
    """
    found = [_LETTERED.fullmatch(option.strip()) for option in options]
    carry = all(
        match and match[1].upper() == letter for match, letter in zip(found, string.ascii_uppercase, strict=False)
    )
    bodies = [match[2] for match in found if match] if carry else [option.strip() for option in options]
    bodies = [" ".join(body.splitlines()) for body in bodies]  # they are asked one a line
    if not 2 <= len(bodies) <= len(string.ascii_uppercase) or not all(bodies):
        raise DomainError(f"{place}: multiple choice needs 2 to 26 options, none of them empty, not {list(options)}")
    return tuple(f"{letter}. {body}" for letter, body in zip(string.ascii_uppercase, bodies, strict=False))


def chosen(answer: str, listed: Sequence[str], place: str) -> str:
    """Return the listed option that an answer is: by its text, else by its letter, or by both, as in "(B) left".

    Args:
        answer: As the data give it.
        listed: As `lettered` returns them.
        place: Where it stands, for messages.

    Raises:
        DomainError: It is none of them, or several say the same and it does not tell which.
    """
    plain = normalise_answer(answer)
    letter, both = plain.strip("()").upper(), _LETTERED.fullmatch(plain)
    told = both and f"{both[1]}. {both[2]}"
    by_text = [option for option in listed if normalise_answer(option[3:]) == plain]
    for named in (
        [option for option in listed if normalise_answer(option) == plain],
        by_text,
        [option for option in listed if option[0] == letter or normalise_answer(option) == told],
    ):
        if len(named) == 1:
            return named[0]
    fault = "is several of its options" if by_text else "is not one of its options"
    raise DomainError(f"{place}: the answer {answer!r} {fault} {list(listed)}")


def close(
    question: str,
    answer: str,
    offered: tuple[str, ...],
    declared: Literal["open", "closed", ""],
    from_question: bool,
    place: str,
) -> tuple[Literal["open", "closed"], tuple[str, ...], str]:
    """Return a question's type, its options, and the answer as it stands among them.

    Args:
        question: Its text.
        answer: The reference.
        offered: The admissible answers, if the data have any.
        declared: The type, if the data have it.
        from_question: Whether the options may be cut out of the question.
        place: Where it stands, for messages.

    Raises:
        DomainError: The answer is none of its options.
    """
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
