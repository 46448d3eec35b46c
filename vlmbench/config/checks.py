"""Checks that need no torch: each field by its schema, then the combinations that cannot work."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any, Literal

from omegaconf import MISSING

from vlmbench.config import schema
from vlmbench.config.domain_checks import check_corruption, check_domain_form
from vlmbench.config.endpoint import endpoint_fault
from vlmbench.config.exposure import hint_at
from vlmbench.config.faults import ConfigError, ImpossibleCellError, unknown
from vlmbench.config.method_checks import check_method
from vlmbench.config.presence import check_present, key_present
from vlmbench.config.prompts import check_candidates, check_prompts, tries_prompts
from vlmbench.config.trainer_checks import check_trainer

METHODS: dict[str, tuple[str, ...]] = {
    "contrastive": ("zero_shot", "linear_probe", "lp_text", "coop", "clip_adapter", "lora", "full"),
    "generative": ("zero_shot", "connector", "lora", "qlora", "full"),
    "hosted": ("zero_shot",),
}
TASKS: dict[str, tuple[str, ...]] = {
    "contrastive": ("diagnosis", "pretrain"),
    "generative": ("vqa", "diagnosis", "pretrain"),
    "hosted": ("vqa",),
}
DOMAIN_TASKS: dict[str, tuple[str, ...]] = {
    "phantom": ("diagnosis", "vqa", "pretrain"),
    "folder": ("diagnosis",),
    "vqa_jsonl": ("vqa",),
    "captions_jsonl": ("pretrain",),
}
#: Methods that leave the image tower of a dual encoder as it came; tuning the text tower alone does too.
ON_FROZEN_IMAGES = ("zero_shot", "linear_probe", "coop", "clip_adapter", "lp_text")


def check_cell(cell: schema.CellConfig) -> None:
    """Check one cell, and that what it needs is here.

    Raises:
        ConfigError: A value is missing or out of range.
        ImpossibleCellError: The parts are each right but cannot go together.
        AbsentError: It is right, but its data, weights or key are not on this machine.
    """
    check_possible(cell)
    check_present(cell)


def check_possible(cell: schema.CellConfig) -> None:
    """Check one cell by its configuration alone, wherever it may run.

    Raises:
        ConfigError: A value is missing or out of range.
        ImpossibleCellError: The parts are each right but cannot go together.
    """
    check_fields(cell)
    for word in cell.model.pretraining_modalities:
        hint_at("model.pretraining_modalities", word)
    check_combination(cell.model, cell.task, cell.finetune, cell.domain)
    check_domain_form(cell.domain, cell.task.name)
    check_prompts(cell.task)
    check_candidates(cell)
    check_corruption(cell.domain, cell.finetune, cell.task.name)
    check_endpoint_form(cell.model)
    check_trainer(cell)
    if cell.trainer.precision == "16-mixed" and not getattr(cell.model, "float16", True):
        raise ConfigError(
            f"trainer.precision=16-mixed: {cell.model.name} overflows in float16 and answers nothing. "
            "Set trainer.precision=bf16-mixed or 32-true."
        )
    if cell.deterministic and cell.trainer.accelerator == "mps":
        raise ConfigError("trainer.accelerator=mps cannot be deterministic; set deterministic=false.")


def check_fields(node: object) -> None:
    """Check every field of a dataclass tree against the choices and the range in its schema.

    Raises:
        ConfigError: At the first field that is missing or not admissible.
    """
    for path, value, metadata in _walk(node, ""):
        if value == MISSING:
            raise ConfigError(f"{path} is not set. Set it on the command line, {path}=..., or in its YAML file.")
        if value is None:
            continue
        if "choices" in metadata and value not in metadata["choices"]:
            raise ConfigError(unknown(path, value, metadata["choices"]))
        if "range" in metadata:
            low, high = metadata["range"]
            if not low <= value <= high:
                bound = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
                raise ConfigError(f"{path}={value!r} is out of range: it must be {bound}.")


def methods_of(model: schema.ModelConfig) -> tuple[str, ...]:
    """Return the finetune methods that apply to a model: what has no text tower and no training is only probed."""
    return ("linear_probe",) if model.loader == "random_features" else METHODS[model.kind]


def check_endpoint(model: schema.ModelConfig) -> None:
    """Check that a hosted model can be asked: its address, its settings, its key in the environment.

    Raises:
        ConfigError: It cannot; the message never repeats a key.
    """
    check_endpoint_form(model)
    key_present(model)


def check_endpoint_form(model: schema.ModelConfig) -> None:
    """Check a hosted model's address and settings, and its key where there is one.

    Raises:
        ConfigError: One of them cannot be; the message never repeats a key.
    """
    if isinstance(model, schema.HostedModelConfig):
        fault = endpoint_fault(model.base_url, model.api_key_env, model.settings, os.environ)
        if fault:
            raise ConfigError(f"{model.name}: {fault}")


def check_combination(
    model: schema.ModelConfig,
    task: schema.TaskConfig,
    finetune: schema.FinetuneConfig,
    domain: schema.DomainConfig,
) -> None:
    """Check that model, task, finetune and domain have a meaning together.

    Raises:
        ImpossibleCellError: They have none; the message lists what goes with the model.
    """
    if finetune.name not in methods_of(model):
        raise ImpossibleCellError(
            f"finetune={finetune.name} does not apply to {model.name}, a {model.kind} model. "
            f"Valid choices: {', '.join(methods_of(model))}."
        )
    if task.name not in TASKS[model.kind]:
        likelihoods = "It takes the likelihood of each label, which an endpoint does not give. "
        reason = likelihoods if (model.kind, task.name) == ("hosted", "diagnosis") else ""
        raise ImpossibleCellError(
            f"task={task.name} does not apply to {model.name}, a {model.kind} model. {reason}"
            f"Valid choices: {', '.join(TASKS[model.kind])}."
        )
    if task.name == "pretrain" and finetune.name in ON_FROZEN_IMAGES:
        raise ImpossibleCellError(
            f"task=pretrain trains a model: finetune={finetune.name} does not. Valid: lora, qlora, full, connector."
        )
    served = domain.tasks if isinstance(domain, schema.PublishedDomainConfig) else DOMAIN_TASKS[domain.source]
    if task.name not in served:
        tasks = ", ".join(served)
        raise ImpossibleCellError(f"domain={domain.name} ({domain.source}) has no {task.name}. Valid tasks: {tasks}.")
    if isinstance(finetune, schema.OptimisedConfig) and finetune.lr is None:
        raise ConfigError(
            f"finetune.lr is not set: the model {model.name} declares learning rates for "
            f"{', '.join(model.learning_rates) or 'no method'}. Set finetune.lr=... ."
        )
    check_method(model, task, finetune, domain)


def uses_linear_head(cell: schema.CellConfig) -> bool:
    """Tell whether a cell classifies by a linear head on features, whose statistics are those of the frozen model."""
    if cell.task.name != "diagnosis" or cell.model.kind != "contrastive":
        return False
    return cell.finetune.name == "linear_probe" or getattr(cell.finetune, "classifier", "text") == "linear"


def frozen_image(cell: schema.CellConfig) -> bool:
    """Tell whether a diagnosis is made on what a dual encoder's image tower gives as it came, whatever else trains."""
    if cell.task.name != "diagnosis" or cell.model.kind != "contrastive":
        return False
    return cell.finetune.name in ON_FROZEN_IMAGES or getattr(cell.finetune, "scope", "") == "text"


def encoded_splits(cell: schema.CellConfig) -> tuple[Literal["train", "val", "test"], ...]:
    """Return the splits whose images a cell encodes once, before it begins; the cache shares them with other cells.

    All that it reads where the image tower stays as it came. Where the tower trains below a linear head, the training
    split, for the head's statistics.
    """
    if not frozen_image(cell):
        return ("train",) if uses_linear_head(cell) else ()
    on_test = cell.task.evaluate_on == "test"
    if cell.finetune.name == "zero_shot":
        chosen: tuple[Literal["train", "val", "test"], ...] = ("val",) if tries_prompts(cell) else ()
        return (*chosen, "test") if on_test else ("val",)
    return ("train", "val", "test") if on_test else ("train", "val")


def _walk(node: object, prefix: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for item in dataclasses.fields(node):  # type: ignore[arg-type]
        value = getattr(node, item.name)
        path = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f"{path}.")
        else:
            yield path, value, dict(item.metadata)
