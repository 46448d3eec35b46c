"""Prompts: which placeholders their templates have, and whether a cell has several to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

from vlmbench.config import schema
from vlmbench.config.faults import ConfigError, ImpossibleCellError

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


def check_prompts(task: schema.TaskConfig) -> None:
    """Check the templates of what is asked.

    Raises:
        ConfigError: A template lacks a placeholder, or has one that nothing fills in.
    """
    if isinstance(task, schema.VqaTaskConfig):
        for name, (known, needed) in VQA_PROMPTS.items():
            if fault := prompt_fault(getattr(task, name), known, needed):
                raise ConfigError(f"task.{name}={getattr(task, name)!r} {fault}.")


def tries_prompts(cell: schema.CellConfig) -> bool:
    """Tell whether a cell chooses among prompts on its validation split."""
    return cell.task.prompts.candidates > 1


def shows_examples(cell: schema.CellConfig) -> bool:
    """Tell whether some of a cell's candidate prompts show questions of the train split with their answers.

    Those of a diagnosis do not: it asks the same of each image, so that without their images others show nothing.
    """
    prompts = cell.task.prompts
    return tries_prompts(cell) and cell.task.name == "vqa" and prompts.in_context > 0


def check_candidates(cell: schema.CellConfig) -> None:
    """Check that there is something to choose a prompt for, and a split to choose it on.

    Raises:
        ImpossibleCellError: The method trains, the task has no prompts to choose, or the answers that choose the prompt
            would be those that are reported.
        ConfigError: The cell takes several devices.
    """
    if not tries_prompts(cell):
        return
    asked = f"task.prompts.candidates={cell.task.prompts.candidates}"
    if cell.finetune.name != "zero_shot":
        raise ImpossibleCellError(
            f"{asked} chooses a prompt for finetune=zero_shot; {cell.finetune.name} trains on one, or reads none. "
            "Leave it out, or set finetune=zero_shot."
        )
    if cell.task.name not in ("diagnosis", "vqa"):
        raise ImpossibleCellError(f"{asked}: task={cell.task.name} asks nothing. Valid tasks: diagnosis, vqa.")
    if cell.task.evaluate_on == "val":
        raise ImpossibleCellError(f"{asked} chooses on the split that task.evaluate_on=val reports. Set it to test.")
    if cell.trainer.devices * cell.trainer.nodes > 1:
        raise ConfigError(f"{asked} is tried on one device: set trainer.devices=1 and trainer.nodes=1.")
