"""Answers on disk, each kept as soon as it arrives, so that none is paid for twice."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said to one question.

    Attributes:
        text: Without outer white space; empty where the model said nothing.
        finish: Why it ended: `stop`, `length` (out of tokens), `content_filter` (declined), or the endpoint's word.
        model: The name that the endpoint gave of the model that answered.
        fingerprint: Its `system_fingerprint`, empty where it gives none.
        input_tokens: Tokens of the question as the endpoint counts them.
        output_tokens: Tokens of the answer, those of its reasoning included.
        budget: Most tokens that the request allowed.
    """

    text: str
    finish: str
    model: str
    fingerprint: str
    input_tokens: int
    output_tokens: int
    budget: int

    def holds(self, budget: int) -> bool:
        """Tell whether the answer stands under another budget: under its own, and under a larger one if it ended."""
        return self.budget == budget or (self.finish != "length" and self.budget < budget)


class AnswerCache:
    """A folder with one file a question, to which answers are appended as lines of JSON.

    A killed process leaves at worst a torn last line, which is no JSON and counts for nothing. While a question is
    being asked its file is locked: whoever else asks the same waits for that answer instead of paying for another, and
    the kernel lets go of the lock however the process ends.

    Args:
        folder: Made when the first question is asked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str, budget: int, ask: Callable[[], Answer]) -> tuple[Answer, bool]:
        """Return the answer to a question, and whether it was there already.

        Args:
            key: Hash of all that determines the answer but the budget.
            budget: Most tokens of the answer.
            ask: Called for an answer that is not there; what it raises is passed on and nothing is kept.

        Raises:
            OSError: The folder cannot be written; found out before anything is asked.
        """
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if (kept := standing(file.read(), budget)) is not None:
                return kept, True
            answer = ask()
            # The line before may be torn.
            file.write(b"\n" + json.dumps(asdict(answer)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return answer, False

    def find(self, key: str, budget: int) -> Answer | None:
        """Return the answer to a question where it is there; nobody is asked, waited for or written to."""
        try:
            return standing(self._path(key).read_bytes(), budget)
        except FileNotFoundError:
            return None

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.jsonl"


def standing(content: bytes, budget: int) -> Answer | None:
    """Return the first answer in a cache file that stands under a budget, None where there is none."""
    answers = (parse(line) for line in content.splitlines())
    return next((answer for answer in answers if answer is not None and answer.holds(budget)), None)


def parse(line: bytes) -> Answer | None:
    """Return the answer in a line of a cache file, None where the line is empty, torn or not one of ours."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    kinds = {field.name: int if field.type == "int" else str for field in fields(Answer)}
    if not isinstance(values, dict) or {name: type(value) for name, value in values.items()} != kinds:
        return None
    return Answer(**values)
