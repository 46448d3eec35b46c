"""The ways of asking that a cell tries, and a cell as it is with one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmbench.config import schema
from vlmbench.config.prompts import shows_examples
from vlmbench.domains.base import Domain, Example
from vlmbench.domains.prompts import build_prompts
from vlmbench.domains.wording import Wording, class_wordings, escaped, question_wordings, spoken


def wordings(config: schema.CellConfig, domain: Domain) -> list[Wording]:
    """Return the candidates of a cell, the configured one first; the same for every model of its kind on the domain."""
    asked = config.task.prompts
    if config.model.kind == "contrastive":
        return class_wordings(asked.candidates, asked.seed)
    found = question_wordings(config.task.name, asked.candidates, asked.seed)
    if not shows_examples(config):
        return found
    # Every other one shows examples, so that both ways are tried however few there are.
    return [one if index % 2 == 0 else _showing(one, index, config, domain) for index, one in enumerate(found)]


def worded(
    config: schema.CellConfig, domain: Domain, wording: Wording | Mapping[str, Any] | None
) -> tuple[schema.CellConfig, Domain]:
    """Return a cell that asks in a given way.

    Args:
        config: The cell as it is configured.
        domain: What it is evaluated on.
        wording: How it asks; or the `prompts` of a record, of which the chosen one holds; None for the configured one.
    """
    if wording is None:
        return config, domain
    if not isinstance(wording, Wording):
        wording = Wording.from_record(wording["candidates"][wording["chosen"]])
    if wording.settings:
        known = {item.name for item in dataclasses.fields(config.task)}
        settings: dict[str, Any] = {name: text for name, text in wording.settings.items() if name in known}
        config = dataclasses.replace(config, task=dataclasses.replace(config.task, **settings))
    if wording.templates:
        said = spoken(domain.modality)
        prompts = build_prompts(
            domain.label_names,
            domain.prompts.phrases,
            *(
                [text.replace("{modality}", said) for text in side]
                for side in (wording.templates, wording.negative_templates)
            ),
            multi_label=domain.multi_label,
        )
        domain = dataclasses.replace(domain, prompts=prompts)
    return config, domain


def _showing(wording: Wording, index: int, config: schema.CellConfig, domain: Domain) -> Wording:
    """Return a wording that shows, before each question, some of its kind from the train split with their answers."""
    from vlmbench.modules import prompting

    rng = np.random.default_rng([config.task.prompts.seed, index])
    ask = prompting.vqa(*(wording.settings[name] for name in ("prompt_open", "prompt_closed", "prompt_choice")))
    by_kind: dict[str, list[Example]] = {}
    for example in domain.split("train"):
        by_kind.setdefault(_kind(example), []).append(example)
    settings, shown = dict(wording.settings), list[str]()
    for kind, rows in sorted(by_kind.items()):
        places = rng.choice(len(rows), min(len(rows), config.task.prompts.in_context), replace=False)
        queries = [ask(rows[place])[0] for place in places]
        before = "".join(f"{query.prompt}\n{query.answer}\n\n" for query in queries)
        settings[kind] = escaped(before) + settings[kind]
        shown += [rows[place].id for place in places]
    return dataclasses.replace(wording, settings=settings, shown=tuple(shown))


def _kind(example: Example) -> str:
    if example.listed:
        return "prompt_choice"
    return "prompt_closed" if example.answer_type == "closed" and example.options else "prompt_open"
