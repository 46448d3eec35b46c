"""A rubric: what a judge is asked about an answer, and how its reply is read, strictly."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from vlmbench.metrics.answers import normalise
from vlmbench.records.identity import digest

RUBRICS = Path(__file__).resolve().parents[1] / "assets" / "judge.yaml"
VERDICTS = {"correct": 1.0, "partial": 0.5, "incorrect": 0.0}
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL | re.IGNORECASE)
_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Item:
    """An answer to be judged.

    Attributes:
        question: As it was asked.
        reference: The answer that counts as true.
        answer: What the model said.
        swapped: Whether the judge reads the answer before the reference.
    """

    question: str
    reference: str
    answer: str
    swapped: bool = False


@dataclass(frozen=True)
class Rubric:
    """What is asked, as the YAML file has it.

    Attributes:
        profile: `strict` has three verdicts, for 1, 0.5 and 0. `medvlmbench` has a rating from 1 to 100, after
            LLaVA-Med (Li et al., NeurIPS 2023, arXiv 2306.00890), as the study's "GPT score"; divided by 100 here.
        version: Raised with every change.
        form: Of the reply: `verdict` or `rating`.
        instructions: System message.
        prompt: User's message with the placeholder `{fields}`.
    """

    profile: str
    version: int
    form: str
    instructions: str
    prompt: str

    @cached_property
    def sha256(self) -> str:
        """Of all that a judge is told."""
        return digest([self.version, self.form, self.instructions, self.prompt])

    def messages(self, item: Item) -> list[dict[str, str]]:
        """Return the messages that ask about one answer; texts from data are JSON strings, which they cannot leave."""
        answers = {"reference_answer": item.reference, "candidate_answer": item.answer}
        if item.swapped:
            answers = dict(reversed(answers.items()))
        fields = json.dumps({"question": item.question, **answers}, ensure_ascii=False, indent=1)
        asked = self.prompt.format(fields=fields)
        return [{"role": "system", "content": self.instructions}, {"role": "user", "content": asked}]

    def read(self, reply: str) -> float | None:
        """Return the score of a reply, from 0 to 1; None where it is not exactly of the form that was asked for.

        Nothing is guessed: a verdict inside other words is none, since the words may be the answer's own. A thought
        before the reply and one code fence around a verdict are allowed.
        """
        thought = _THOUGHT.match(reply)
        reply = reply[thought.end() :].strip() if thought else reply.strip()
        if self.form == "rating":
            first = reply.partition("\n")[0].strip()
            return int(first) / 100 if re.fullmatch(r"[1-9][0-9]?|100", first) else None
        fenced = _FENCE.fullmatch(reply)
        try:
            value = json.loads(fenced[1] if fenced else reply, object_pairs_hook=list)
        except (ValueError, RecursionError):
            return None
        return next((score for verdict, score in VERDICTS.items() if value == [("verdict", verdict)]), None)

    def exact(self, reference: str, answer: str) -> bool:
        """Tell whether an answer is the reference itself, and needs no judge.

        By the study's convention the strings are equal, by ours they are after normalisation.
        """
        if self.profile == "medvlmbench":
            return reference == answer
        return normalise(reference) == normalise(answer)


def read_rubric(profile: str, path: Path = RUBRICS) -> Rubric:
    """Return the rubric of a profile.

    Args:
        profile: `strict` or `medvlmbench`.
        path: The YAML file.
    """
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Rubric(profile=profile, **found[profile])
