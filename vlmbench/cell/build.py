"""From configuration to parts: the one place that reads config objects and hands out plain arguments."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlmbench.backbones.attention import set_attention
from vlmbench.backbones.loaders import load
from vlmbench.catalogue.sources import sources_of
from vlmbench.config import schema
from vlmbench.domains.base import Domain
from vlmbench.hosted.answers import AnswerCache
from vlmbench.hosted.endpoint import Endpoint
from vlmbench.hosted.model import HostedVlm
from vlmbench.modules import prompting
from vlmbench.modules.base import Optimisation, TunedModule
from vlmbench.modules.contrastive import ContrastiveModule, TextClassifier
from vlmbench.modules.generative import GenerativeModule
from vlmbench.modules.pretrain import CaptionModule
from vlmbench.tuning.clip_adapter import AdaptedClassifier
from vlmbench.tuning.coop import ContextClassifier
from vlmbench.tuning.heads import class_embeddings, flatten_prompts
from vlmbench.tuning.lp_text import BlendedClassifier
from vlmbench.tuning.tuners import Frozen, Full, Lora, Qlora, Tuner
from vlmbench.weights.faults import loading
from vlmbench.weights.locate import MAIN, locate_all
from vlmbench.weights.lock import read_lock


def build_backbone(
    model: schema.ModelConfig, *, precision: str, trains_all: bool, lock: str, attention: str = "auto"
) -> Any:
    """Load a model through the loader that its YAML names.

    Weights that stay frozen are held in the half type of a mixed precision; weights that train are held in float32.

    Args:
        model: Its configuration.
        precision: Lightning's name.
        trains_all: Whether pretrained weights themselves train.
        lock: Path of the lock file.
        attention: Kernel of the attention, transformers' name; `auto` leaves it to transformers.

    Raises:
        WeightsUnavailableError: The weights are not here and cannot be fetched.
        UserError: The model has no such attention.
    """
    if isinstance(model, schema.HostedModelConfig):
        return build_hosted(model)
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    dtype = torch.float32 if trains_all else half.get(precision, torch.float32)
    sources = sources_of(model)
    folders = locate_all(sources, read_lock(lock))
    folder = folders.pop(MAIN)
    settings = dict(model.settings)
    if isinstance(model, schema.GenerativeModelConfig):
        settings |= {key: getattr(model, key) for key in ("chat_template", "answer_prefix", "max_length", "processor")}
    with loading(sources[MAIN], folder, model.loader):
        backbone = load(
            model.loader,
            folder,
            dtype=dtype,
            companions=folders,
            **settings,
        )
    if attention != "auto":
        set_attention(backbone.model, attention)
    return backbone


def build_hosted(model: schema.HostedModelConfig) -> HostedVlm:
    """Return a hosted model; nothing is asked yet."""
    return HostedVlm(
        Endpoint(model.base_url, model.api_key_env, timeout=model.timeout, retries=model.retries),
        AnswerCache(Path(model.cache).expanduser()),
        model.source,
        instructions=model.instructions,
        settings=model.settings,
        token_field=model.token_field,
        extra_tokens=model.extra_tokens,
        max_side=model.max_side,
        concurrency=model.concurrency,
    )


def build_tuner(finetune: schema.FinetuneConfig, device: torch.device | None = None) -> Tuner:
    """Return the method.

    Args:
        finetune: Its configuration.
        device: Where the cell will be computed, for what a method prepares there layer by layer.
    """
    if isinstance(finetune, schema.LoraConfig):
        lora = Lora(finetune.scope, finetune.rank, finetune.alpha, finetune.dropout, finetune.connector)
        return Qlora(lora, device) if isinstance(finetune, schema.QloraConfig) else lora
    if isinstance(finetune, schema.FullConfig):
        return Full(finetune.scope)
    if isinstance(finetune, schema.ConnectorConfig):
        return Full("M")
    return Frozen()


def optimisation_of(finetune: schema.FinetuneConfig) -> Optimisation | None:
    """Return the optimiser's settings, None for methods without gradient steps."""
    if not isinstance(finetune, schema.OptimisedConfig) or finetune.lr is None:
        return None
    optimiser = getattr(finetune, "optimiser", "adamw")
    return Optimisation(finetune.lr, finetune.weight_decay, finetune.warmup, finetune.schedule, optimiser)


def build_classifier(config: schema.CellConfig, domain: Domain, backbone: Any, width: int) -> nn.Module | None:
    """Return the classifier that a method trains on embeddings of a frozen image tower, as it is at first.

    None for methods that have none, or a linear head.

    Args:
        config: The cell.
        domain: Whose labels it tells apart.
        backbone: A contrastive backbone.
        width: Of the image embeddings, D.
    """
    finetune = config.finetune
    if isinstance(finetune, schema.CoopConfig):
        names, owners = flatten_prompts(domain.prompts.phrases, domain.label_names)
        return ContextClassifier(
            *(backbone, names, owners),
            length=finetune.context_length,
            words=finetune.words,
            class_specific=finetune.class_specific,
            multi_label=domain.multi_label,
        )
    if isinstance(finetune, schema.ClipAdapterConfig):
        text = TextClassifier(backbone, domain, trained=False)
        return AdaptedClassifier(text, width, reduction=finetune.reduction, ratio=finetune.ratio)
    if isinstance(finetune, schema.LpTextConfig):
        texts, owners = flatten_prompts(domain.prompts.positive, domain.label_names)
        with torch.no_grad():
            classes = class_embeddings(backbone.encode_text(backbone.tokenize(texts)), owners).cpu()
        return BlendedClassifier(torch.zeros_like(classes), torch.zeros(len(classes)), classes)
    return None


def build_module(config: schema.CellConfig, domain: Domain, backbone: Any, head: nn.Module | None) -> TunedModule:
    """Return the LightningModule of a cell.

    Args:
        config: The cell.
        domain: What it is trained or evaluated on.
        backbone: Already prepared by the tuner.
        head: The classifier, for cells that train one.
    """
    optimisation = optimisation_of(config.finetune)
    if config.model.kind == "contrastive":
        if config.task.name == "pretrain":
            return CaptionModule(backbone, optimisation)
        trained = "text" in str(getattr(config.finetune, "scope", ""))
        return ContrastiveModule(
            backbone,
            head if head is not None else TextClassifier(backbone, domain, trained=trained),
            label_count=len(domain.label_names),
            multi_label=domain.multi_label,
            optimisation=optimisation,
        )
    return GenerativeModule(
        backbone,
        build_asker(config.task, domain),
        mode=config.task.name,  # type: ignore[arg-type]
        label_count=len(domain.label_names),
        multi_label=domain.multi_label,
        max_new_tokens=getattr(config.task, "max_new_tokens", 32),
        likelihood=getattr(config.task, "likelihood", False) and config.model.kind != "hosted",
        validate_answers=config.task.name == "vqa" and config.task.monitor == "val/accuracy",
        optimisation=optimisation,
    )


def build_asker(task: schema.TaskConfig, domain: Domain) -> prompting.Asker:
    """Return what turns an example into questions for a generative model."""
    if isinstance(task, schema.VqaTaskConfig):
        return prompting.vqa(task.prompt_open, task.prompt_closed, task.prompt_choice)
    if isinstance(task, schema.DiagnosisTaskConfig):
        return prompting.diagnosis(domain, task.question, task.question_multi_label)
    return prompting.captioning(getattr(task, "instruction", ""))


def plain(config: object) -> dict[str, Any]:
    """Return a configuration as nested plain values, for the record and the identity."""
    return dataclasses.asdict(config)  # type: ignore[call-overload]
