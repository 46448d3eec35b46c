"""From a domain's examples to what a generative model is asked, what it should answer, and what it may choose from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vlmbench.domains.base import Domain, Example
from vlmbench.domains.questions import YES_NO


@dataclass(frozen=True, slots=True)
class Query:
    """One question put to a model.

    Attributes:
        prompt: The user's turn, without image tokens.
        answer: The reference.
        options: What may be chosen from; empty for an open question.
    """

    prompt: str
    answer: str
    options: tuple[str, ...] = ()


Asker = Callable[[Example], list[Query]]


def vqa(prompt_open: str, prompt_closed: str, prompt_choice: str) -> Asker:
    """Return the asker of VQA: one question an example, its prompt chosen by the declared type, never by the answer.

    Where the options are listed under letters, the letter is what a model is taught and what likelihoods are taken of;
    a generated answer may be the letter, the option, or both.

    Args:
        prompt_open: Template with `{question}`.
        prompt_closed: Template with `{question}` and, if wanted, `{options}`.
        prompt_choice: Template with `{question}` and `{choices}`, the options one a line.
    """

    def ask(example: Example) -> list[Query]:
        if example.listed:
            prompt = prompt_choice.format(question=example.question, choices="\n".join(example.options))
            return [Query(prompt, example.answer[0], tuple(option[0] for option in example.options))]
        closed = example.answer_type == "closed" and bool(example.options)
        template = prompt_closed if closed else prompt_open
        prompt = template.format(question=example.question, options=_listed(example.options))
        return [Query(prompt, example.answer, example.options if closed else ())]

    return ask


def diagnosis(domain: Domain, question: str, question_multi_label: str) -> Asker:
    """Return the asker of diagnosis: one question with the labels as options, or one yes/no question a label.

    Args:
        domain: Gives labels, modality, and whether several labels may hold.
        question: Template with `{modality}` and `{options}`.
        question_multi_label: Template with `{modality}` and `{label}`.
    """
    names = tuple(domain.label_names)
    modality = domain.modality.replace("+", " or ")

    def ask_one(example: Example) -> list[Query]:
        prompt = question.format(modality=modality, options=_listed(names))
        return [Query(prompt, names[example.labels[0]], names)]

    def ask_each(example: Example) -> list[Query]:
        return [
            Query(
                question_multi_label.format(modality=modality, label=name),
                "yes" if index in example.labels else "no",
                YES_NO,
            )
            for index, name in enumerate(names)
        ]

    return ask_each if domain.multi_label else ask_one


def captioning(instruction: str) -> Asker:
    """Return the asker of captioning: the same instruction for every image, its caption as the answer."""

    def ask(example: Example) -> list[Query]:
        return [Query(instruction, example.caption)]

    return ask


def _listed(options: tuple[str, ...]) -> str:
    return f"{', '.join(options[:-1])} or {options[-1]}" if len(options) > 1 else "".join(options)
