"""Ways of asking the same, drawn from a small grammar: class prompts of dual encoders, questions of generative models.

The first is always the configured one. What is drawn depends on the kind of model, the number and the seed alone, never
on the model, and the first of many are those of few. Jeong et al. (EMNLP 2024, arXiv 2411.04118) show that one prompt
for all models overstates what medical training brings: each model has its own best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

GRAMMAR = Path(__file__).resolve().parents[1] / "assets" / "prompts.yaml"
#: Draws that may find nothing new before the grammar counts as exhausted.
_PATIENCE = 200


@dataclass(frozen=True, slots=True)
class Wording:
    """One way of asking; without anything in it, the configured one.

    Attributes:
        templates: Class prompts with `{label}` and perhaps `{modality}`, see `spoken`.
        negative_templates: Those that say that a label is absent.
        settings: Fields of the task to their templates.
        shown: Ids of the examples of the train split that are shown with their answers, within `settings`.
    """

    templates: tuple[str, ...] = ()
    negative_templates: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Return it as plain values."""
        listed = {name: list(getattr(self, name)) for name in ("templates", "negative_templates", "shown")}
        return {**listed, "settings": dict(self.settings)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Wording:
        """Return what `as_record` was given."""
        listed = {name: tuple(record[name]) for name in ("templates", "negative_templates", "shown")}
        return cls(settings=dict(record["settings"]), **listed)


def class_wordings(count: int, seed: int) -> list[Wording]:
    """Return at most `count` ways of naming a class, single templates and ensembles; the configured one first."""
    grammar = _grammar()["class_prompts"]
    sentences = [
        tuple(side.replace("{picture}", picture).replace("{end}", end) for side in sides)
        for sides, picture, end in product(grammar["sentences"], grammar["picture"], grammar["end"])
    ]

    def one(rng: np.random.Generator) -> Wording:
        size = int(rng.choice(grammar["together"]))
        drawn = [sentences[i] for i in sorted(rng.choice(len(sentences), size, replace=False))]
        positive, negative = zip(*drawn, strict=True)
        return Wording(positive, negative)

    return _distinct(one, count, seed)


def question_wordings(task: str, count: int, seed: int) -> list[Wording]:
    """Return at most `count` ways of asking a generative model; the first is the configured one.

    Args:
        task: `vqa` or `diagnosis`.
        count: How many.
        seed: Decides which.
    """
    grammar = _grammar()[task]
    shared = next(name for name in grammar if name in ("lead", "subject"))

    def one(rng: np.random.Generator) -> Wording:
        said = str(rng.choice(grammar[shared]))
        drawn = {name: str(rng.choice(grammar[name])) for name in grammar if name != shared}
        return Wording(settings={name: text.replace(f"{{{shared}}}", said) for name, text in drawn.items()})

    return _distinct(one, count, seed)


def spoken(modality: str) -> str:
    """Return how a sentence names an image of a modality; several are joined by "or"."""
    words = _grammar()["modalities"]
    return " or ".join(dict.fromkeys(words.get(part.strip().lower(), words[""]) for part in modality.split("+")))


def escaped(text: str) -> str:
    """Return a text as it stands in a template."""
    return text.replace("{", "{{").replace("}", "}}")


def _distinct(one: Any, count: int, seed: int) -> list[Wording]:
    rng = np.random.default_rng(seed)
    found, misses = [Wording()], 0
    while len(found) < count and misses < _PATIENCE:
        drawn = one(rng)
        misses = misses + 1 if drawn in found else 0
        if not misses:
            found.append(drawn)
    return found


@lru_cache(maxsize=1)
def _grammar() -> Mapping[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(GRAMMAR.read_text(encoding="utf-8"))
    return loaded


def sampled(n: int, most: int, seed: int) -> Sequence[int]:
    """Return at most `most` of `n` places, ascending; the same for everybody who has this seed."""
    return range(n) if n <= most else sorted(np.random.default_rng([seed, n]).choice(n, most, replace=False).tolist())
