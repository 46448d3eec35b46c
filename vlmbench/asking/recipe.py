"""A recipe for questions: what is asked, what a reply must be, and which questions no image answers."""

from __future__ import annotations

import hashlib
import json
import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from vlmbench.domains.tables import MISSING

RECIPE = Path(__file__).resolve().parents[1] / "assets" / "questions_fairvlmed.yaml"
STATED = ("yes", "no")
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


class UnusableReplyError(Exception):
    """A reply that is not of the form that was asked for; the message says why, in the same words for one kind."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answer, without white space around or line breaks in either."""

    question: str
    answer: str


@dataclass(frozen=True)
class Recipe:
    """A recipe as its YAML file has it.

    Attributes:
        version: Raised with every change.
        instructions: System message.
        prompt: User's message with the placeholders `{answer}` and `{summary}`.
        schema: JSON schema of a reply, of the few keywords that `misfit` knows.
        unseen: Topic to words that no image shows; a star stands for any ending.
    """

    version: int
    instructions: str
    prompt: str
    schema: Mapping[str, Any]
    unseen: Mapping[str, Sequence[str]]

    def messages(self, summary: str, stated: str) -> list[dict[str, str]]:
        """Return the messages that ask for the questions of one image.

        Args:
            summary: Of its clinical note.
            stated: The answer that the closed question must have, `yes` or `no`.
        """
        asked = self.prompt.format(summary=summary, answer=stated)
        return [{"role": "system", "content": self.instructions}, {"role": "user", "content": asked}]

    def read(self, reply: str, stated: str) -> tuple[Question, Question]:
        """Return the open and the closed question of a reply, which may stand in one code fence and after one thought.

        Args:
            reply: The text that came.
            stated: The answer that the closed question must have.

        Raises:
            UnusableReplyError: It is of another form, or the closed answer is another.
        """
        thought = _THOUGHT.match(reply)
        reply = reply[thought.end() :].strip() if thought else reply.strip()
        fenced = _FENCE.fullmatch(reply)
        try:
            value = json.loads(fenced[1] if fenced else reply, object_pairs_hook=_once)
        except (ValueError, RecursionError):
            raise UnusableReplyError("not one JSON object") from None
        value = _tidied(value)
        if fault := misfit(value, self.schema):
            raise UnusableReplyError(fault)
        asked, closed = (Question(**value[kind]) for kind in ("open", "closed"))
        if not all(map(_storable, (asked.question, asked.answer, closed.question))):
            raise UnusableReplyError("characters that no table can hold")
        if closed.answer != stated:
            raise UnusableReplyError("the closed answer is not the one asked for")
        if asked.answer.lower().rstrip(" .!") in STATED or asked.answer.lower() in MISSING:
            raise UnusableReplyError("the open answer is yes, no or nothing")
        return asked, closed

    def unseen_topic(self, question: Question) -> str:
        """Return the topic of the first word that no image shows, in the question or its answer; "" where none is."""
        text = f"{question.question}\n{question.answer}"
        return next((topic for topic, words in self._patterns.items() if words.search(text)), "")

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern[str]]:
        def one(word: str) -> str:
            return re.escape(word.removesuffix("*")) + (r"\w*" if word.endswith("*") else "")

        return {
            topic: re.compile(rf"(?<!\w)(?:{'|'.join(map(one, words))})(?!\w)", re.IGNORECASE)
            for topic, words in self.unseen.items()
        }


def read_recipe(path: Path = RECIPE) -> Recipe:
    """Return the recipe in a YAML file."""
    return Recipe(**yaml.safe_load(path.read_text(encoding="utf-8")))


def stated_answers(names: Sequence[str], seed: int) -> dict[str, str]:
    """Return which answer the closed question of each image must have, in an order in which yes and no alternate.

    Args:
        names: Of the images of one split, unique; their order does not matter.
        seed: Decides which are which.
    """
    order = sorted(names)
    random.Random(seed).shuffle(order)
    return {name: STATED[place % 2] for place, name in enumerate(order)}


def row_seed(seed: int, name: str, attempt: int) -> int:
    """Return the seed of one request, of 31 bits.

    Args:
        seed: Of the whole set.
        name: Of the image.
        attempt: From 0.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}/{attempt}".encode()).digest()[:4]) >> 1


def misfit(value: Any, schema: Mapping[str, Any], place: str = "the reply") -> str:
    """Return how a value does not fit a JSON schema, "" where it fits.

    Of JSON Schema this knows `type` object and string, `properties`, `required`, `minLength`, `maxLength` and `enum`;
    properties that are not named are never admitted.
    """
    if "enum" in schema:
        return "" if value in schema["enum"] else f"{place} is none of {', '.join(schema['enum'])}"
    if schema["type"] == "string":
        if not isinstance(value, str):
            return f"{place} is no text"
        return "" if schema["minLength"] <= len(value) <= schema["maxLength"] else f"{place} is too short or too long"
    if not isinstance(value, dict) or set(value) != set(schema["required"]):
        return f"{place} has not exactly the keys {', '.join(schema['required'])}"
    parts = ((value[key], part, f"{key} of {place}") for key, part in schema["properties"].items())
    return next((fault for part in parts if (fault := misfit(*part))), "")


def _storable(text: str) -> bool:
    """Tell whether a table can hold a text: no half of a pair of surrogates, no control character."""
    return not {unicodedata.category(character) for character in text} & {"Cc", "Cs"}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; a key that comes twice is no form that was asked for.

    Raises:
        ValueError: One does.
    """
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def _tidied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tidied(part) for key, part in value.items()}
    return " ".join(value.split()) if isinstance(value, str) else value
