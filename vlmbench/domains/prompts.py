"""Class prompts of a diagnosis domain, from phrases and templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter

from vlmbench.domains.base import DomainError, Prompts

DEFAULT_TEMPLATES = ("a photo of {label}",)
DEFAULT_NEGATIVE_TEMPLATES = ("a photo without {label}",)


def build_prompts(
    labels: Sequence[str],
    phrases: Mapping[str, str | Sequence[str]] | None = None,
    templates: str | Sequence[str] = DEFAULT_TEMPLATES,
    negative_templates: str | Sequence[str] = (),
    *,
    multi_label: bool = False,
) -> Prompts:
    """Put every phrase of a label into every template.

    Args:
        labels: The classes.
        phrases: Per label, the ways of saying it; a label without any is said by its own name.
        templates: Sentences with the placeholder `{label}` that say the label is present.
        negative_templates: Likewise that it is absent; needed by a multi-label domain and unused by another.
        multi_label: Whether each label is decided for itself, present against absent.

    Raises:
        DomainError: A phrase for a label that is not there, an empty phrase, a template without `{label}` or with
            another placeholder, no template at all, or a multi-label domain without negative templates.
    """
    phrases = phrases or {}
    unknown = sorted(set(phrases) - set(labels))
    if unknown:
        raise DomainError(f"prompts: phrases for {_quoted(unknown)}, but the labels are {_quoted(labels)}")
    if multi_label and not negative_templates:
        raise DomainError(
            "prompts: a multi-label domain decides each label against its absence and needs negative_templates, "
            f"such as 'no {{label}}'; the labels are {_quoted(labels)}"
        )
    said = {label: _texts(phrases.get(label) or label) for label in labels}
    for label, texts in said.items():
        if not all(text.strip() for text in texts):
            raise DomainError(f"prompts: an empty phrase for {label!r}; the labels are {_quoted(labels)}")

    def fill(name: str, sentences: str | Sequence[str]) -> dict[str, tuple[str, ...]]:
        checked = [_checked(name, sentence, labels) for sentence in _texts(sentences)]
        if not checked:
            raise DomainError(f"prompts: {name} is empty; give at least one, such as 'a photo of {{label}}'")
        return {
            label: tuple(dict.fromkeys(sentence.format(label=text) for text in texts for sentence in checked))
            for label, texts in said.items()
        }

    negative = fill("negative_templates", negative_templates) if multi_label else {}
    return Prompts(fill("templates", templates), negative, said)


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(text) for text in value)


def _checked(name: str, template: str, labels: Sequence[str]) -> str:
    try:
        fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise DomainError(f"prompts: {name}: {template!r} is no template: {error}") from error
    if fields != {"label"}:
        raise DomainError(
            f"prompts: {name}: {template!r} must have the placeholder {{label}} and no other, for the labels "
            f"{_quoted(labels)} to stand in"
        )
    return template


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
