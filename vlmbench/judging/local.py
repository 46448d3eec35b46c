"""A generative model on this machine as a judge."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlmbench.hosted.answers import Answer


@dataclass
class LocalJudge:
    """A model that answers greedily, one question at a time.

    Attributes:
        reply: Takes a prompt and the most tokens and returns the text, as `backbones.generative.text_alone.reply` does.
        name: Of the model.
        weights: Digest of its weights.
        precision: Of its arithmetic, which decides between close tokens.
        concurrency: Questions at a time.
    """

    reply: Callable[[str, int], str]
    name: str
    weights: str
    precision: str
    concurrency: int = field(init=False, default=1)

    def body(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Return the prompt and the weights that answer it; where they are does not matter.

        Not every chat template has a system message, so that one message says all.
        """
        prompt = "\n\n".join(turn["content"] for turn in messages)
        return {"weights": self.weights, "precision": self.precision, "prompt": prompt}

    def ask(self, body: Mapping[str, Any], budget: int, stop: threading.Event) -> Answer:
        """Return the reply; the tokens of question and reply are not counted."""
        return Answer(self.reply(body["prompt"], budget).strip(), "stop", self.name, self.weights, 0, 0, budget)
