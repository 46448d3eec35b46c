"""Checks that need no torch: each field by its schema, then the combinations that cannot work."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from vlmbench.config import schema
from vlmbench.config.endpoint import endpoint_fault
from vlmbench.config.exposure import hint_at, parts
from vlmbench.errors import UserError

METHODS: dict[str, tuple[str, ...]] = {
    "contrastive": ("zero_shot", "linear_probe", "lora", "full"),
    "generative": ("zero_shot", "connector", "lora", "full"),
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
CONTRASTIVE_SCOPES = ("vision", "text", "vision+text")
GENERATIVE_SCOPES = ("V", "M", "L", "VM", "VL", "ML", "VML")


class ConfigError(UserError):
    """The configuration cannot work; the message names the key and lists the valid choices."""


class ImpossibleCellError(ConfigError):
    """A combination of model, task, finetune and domain that has no meaning; a grid leaves it out."""


def unknown(what: str, value: object, valid: Iterable[str]) -> str:
    """Return the message for a value that is not among the valid ones, with the nearest as a suggestion."""
    options = sorted(valid)
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{what}={value!r} is not valid.{hint} Valid choices: {', '.join(options)}."


def check_cell(cell: schema.CellConfig) -> None:
    """Check one cell.

    Raises:
        ConfigError: A value is missing, out of range, or names something that is not there.
        ImpossibleCellError: The parts are each right but cannot go together.
    """
    check_fields(cell)
    check_model(cell.model)
    check_combination(cell.model, cell.task, cell.finetune, cell.domain)
    check_domain(cell.domain, cell.task.name)
    _check_corruption(cell.domain, cell.finetune)
    check_endpoint(cell.model)
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


def check_model(model: schema.ModelConfig) -> None:
    """Check what a model's YAML says about where its weights come from.

    Raises:
        ConfigError: A local folder that is not there.
    """
    for word in model.pretraining_modalities:
        hint_at("model.pretraining_modalities", word)
    is_address = model.source.startswith(("https://", "http://"))
    looks_local = model.source.startswith((".", "/", "~")) or model.source.count("/") > 1
    has_folder = model.kind != "hosted" and looks_local and not is_address
    if has_folder and not Path(model.source).expanduser().is_dir():
        hint = (
            "Give that of a checkpoint in the hub's format (config.json, *.safetensors, tokenizer), a hub id such as "
            "openai/clip-vit-base-patch32, or package:NAME."
        )
        if model.how_to_get:
            hint = f"To get the weights: {model.how_to_get}."
        raise ConfigError(f"model.source={model.source!r} is not a folder. {hint}")


def check_endpoint(model: schema.ModelConfig) -> None:
    """Check that a hosted model can be asked: its address, its settings, its key in the environment.

    Raises:
        ConfigError: It cannot; the message never repeats a key.
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
    if finetune.name not in METHODS[model.kind]:
        raise ImpossibleCellError(
            f"finetune={finetune.name} does not apply to {model.name}, a {model.kind} model. "
            f"Valid choices: {', '.join(METHODS[model.kind])}."
        )
    if task.name not in TASKS[model.kind]:
        likelihoods = "It takes the likelihood of each label, which an endpoint does not give. "
        reason = likelihoods if (model.kind, task.name) == ("hosted", "diagnosis") else ""
        raise ImpossibleCellError(
            f"task={task.name} does not apply to {model.name}, a {model.kind} model. {reason}"
            f"Valid choices: {', '.join(TASKS[model.kind])}."
        )
    if task.name == "pretrain" and finetune.name in ("zero_shot", "linear_probe"):
        raise ImpossibleCellError(
            f"task=pretrain trains: finetune={finetune.name} does not. Valid: lora, full, connector."
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
    if isinstance(finetune, schema.LoraConfig | schema.FullConfig):
        scopes = CONTRASTIVE_SCOPES if model.kind == "contrastive" else GENERATIVE_SCOPES
        if finetune.scope not in scopes:
            raise ImpossibleCellError(unknown("finetune.scope", finetune.scope, scopes))
        _check_classifier(model, task, finetune, domain)


def _check_classifier(
    model: schema.ModelConfig,
    task: schema.TaskConfig,
    finetune: schema.LoraConfig | schema.FullConfig,
    domain: schema.DomainConfig,
) -> None:
    if model.kind != "contrastive":
        return
    if task.name == "diagnosis" and finetune.classifier == "linear" and "text" in finetune.scope:
        raise ImpossibleCellError(
            f"finetune.scope={finetune.scope} trains the text tower, which a linear head does not use. "
            "Set finetune.classifier=text, or finetune.scope=vision."
        )
    multi_label = getattr(domain, "multi_label", False) or getattr(domain, "target", "") == "multilabel"
    said = domain.rule() if isinstance(domain, schema.PublishedDomainConfig) else domain
    if task.name == "diagnosis" and finetune.classifier == "text" and multi_label and not said.negative_templates:
        raise ImpossibleCellError(
            f"domain={domain.name} is multi-label: text prompts as classifier need domain.negative_templates, "
            "for example ['no sign of {label}']."
        )


def check_domain(domain: schema.DomainConfig, task: str) -> None:
    """Check a domain's name, paths and templates.

    Raises:
        ConfigError: A name that no folder can have, a folder or table that is not there, a template without its
            placeholder, bad fractions, no modality or too many.
    """
    if not re.fullmatch(r"\w[^/\\]*", domain.name):
        raise ConfigError(
            f"domain.name={domain.name!r} is part of folder names: begin with a letter or digit, without / or \\."
        )
    for word in parts(domain.modality):
        hint_at("domain.modality", word)
    for key in ("templates", "negative_templates"):
        for template in getattr(domain, key):
            if "{label}" not in template:
                raise ConfigError(f"domain.{key}: {template!r} lacks the placeholder {{label}}.")
    check_subset(domain, task)
    if isinstance(domain, schema.TableDomainConfig):
        root = Path(domain.root).expanduser()
        if not root.is_dir():
            raise ConfigError(
                f"domain.root={domain.root!r} is not a folder. Give the folder that holds {domain.table}."
            )
        if not (root / domain.table).is_file():
            tables = sorted(p.name for p in root.iterdir() if p.suffix in {".csv", ".tsv", ".jsonl"})
            raise ConfigError(
                f"domain.table={domain.table!r} is not in {root}. Tables there: {', '.join(tables) or 'none'}."
            )
        _check_fractions(domain.split_fractions)
    if isinstance(domain, schema.PublishedDomainConfig):
        _check_published(domain)
    if isinstance(domain, schema.PhantomDomainConfig) and not domain.modalities:
        raise ConfigError("domain.modalities=[] is empty: name one phantom modality, or several for a mixture.")
    if isinstance(domain, schema.PhantomDomainConfig) and len(domain.modalities) != 1 and task == "diagnosis":
        raise ConfigError(
            f"domain.modalities={list(domain.modalities)}: a diagnosis takes one modality; "
            "mixtures are for pretrain and vqa."
        )


def check_subset(domain: schema.DomainConfig, task: str) -> None:
    """Check the choice of training examples.

    Raises:
        ConfigError: No examples, two ways of choosing them, or so many of each label where there are no labels.
    """
    if domain.fraction <= 0:
        raise ConfigError(
            f"domain.fraction={domain.fraction:g} leaves nothing to train on: it must be above 0, up to 1. "
            "finetune=zero_shot trains on nothing."
        )
    if domain.shots and domain.fraction < 1:
        raise ConfigError(
            f"domain.shots={domain.shots} and domain.fraction={domain.fraction:g} both choose training examples. "
            "Set one of them."
        )
    if domain.shots and task not in ("diagnosis", ""):
        raise ConfigError(
            f"domain.shots={domain.shots} counts examples of each label, and task={task} has no labels. "
            "Set domain.fraction=... instead, a share of the train split."
        )


def check_evaluation(domain: schema.DomainConfig) -> None:
    """Check a domain that a finished cell is taken to.

    Raises:
        ConfigError: It asks for a subset of what is not trained on.
    """
    if domain.shots or domain.fraction < 1:
        raise ConfigError(
            "domain.fraction and domain.shots choose among the training examples, and an evaluation trains on none. "
            "Leave them out, or give them to python -m vlmbench.train."
        )


def _check_corruption(domain: schema.DomainConfig, finetune: schema.FinetuneConfig) -> None:
    if domain.corruption != "none" and finetune.name != "zero_shot":
        raise ImpossibleCellError(
            f"domain.corruption={domain.corruption} is for evaluation, and finetune={finetune.name} trains: train "
            f"clean, then python -m vlmbench.evaluate cell=... domain=... domain.corruption={domain.corruption}."
        )


def _check_published(domain: schema.PublishedDomainConfig) -> None:
    if domain.target != "auto" and domain.target not in domain.rules:
        raise ConfigError(unknown("domain.target", domain.target, ["auto", *domain.rules]))
    for key in ("templates", "negative_templates"):
        for template in getattr(domain.rule(), key):
            if "{label}" not in template:
                raise ConfigError(f"domain.rules.{domain.rule_name()}.{key}: {template!r} lacks {{label}}.")
    root = Path(domain.root).expanduser()
    if not root.is_dir():
        raise ConfigError(
            f"domain.root={domain.root!r} is not a folder. Bring {domain.title or domain.name} there, or learn how to "
            f"get it: python -m vlmbench.fetch domain={domain.name}. VLMBENCH_DATA names the folder of all datasets."
        )
    _check_fractions(domain.split_fractions)


def _check_fractions(fractions: list[float]) -> None:
    sums_to_1 = math.isclose(sum(fractions), 1, abs_tol=1e-6)
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] == 0 or not sums_to_1:
        raise ConfigError(
            f"domain.split_fractions={fractions} must be three shares (train, val, test) that add to 1, train's above "
            "0."
        )


def _walk(node: object, prefix: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for item in dataclasses.fields(node):  # type: ignore[arg-type]
        value = getattr(node, item.name)
        path = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f"{path}.")
        else:
            yield path, value, dict(item.metadata)
