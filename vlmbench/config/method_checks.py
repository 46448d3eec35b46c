"""Combinations of a method with a model and a domain that cannot work."""

from __future__ import annotations

from vlmbench.config import schema
from vlmbench.config.faults import ImpossibleCellError, unknown

CONTRASTIVE_SCOPES = ("vision", "text", "vision+text")
GENERATIVE_SCOPES = ("V", "M", "L", "VM", "VL", "ML", "VML")
#: Loaders of models that give several embeddings for an image.
SEVERAL_EMBEDDINGS = ("hf_blip2",)


def check_method(
    model: schema.ModelConfig,
    task: schema.TaskConfig,
    finetune: schema.FinetuneConfig,
    domain: schema.DomainConfig,
) -> None:
    """Check what a method asks of the others, for a method that applies to this kind of model.

    Raises:
        ImpossibleCellError: They cannot give it.
    """
    if isinstance(finetune, schema.LoraConfig | schema.FullConfig):
        scopes = CONTRASTIVE_SCOPES if model.kind == "contrastive" else GENERATIVE_SCOPES
        if finetune.scope not in scopes:
            raise ImpossibleCellError(unknown("finetune.scope", finetune.scope, scopes))
        if isinstance(finetune, schema.QloraConfig) and "L" not in finetune.scope:
            raise ImpossibleCellError(
                f"finetune.scope={finetune.scope}: finetune=qlora adapts the language model that it holds in 4 bits. "
                "Set a scope with L, for example finetune.scope=ML, or finetune=lora."
            )
        _check_classifier(model, task, finetune, domain)
    if isinstance(finetune, schema.ClipAdapterConfig):
        _check_absence(domain)
    if isinstance(finetune, schema.LpTextConfig):
        _check_lp_text(model, domain)


def _check_classifier(
    model: schema.ModelConfig,
    task: schema.TaskConfig,
    finetune: schema.LoraConfig | schema.FullConfig,
    domain: schema.DomainConfig,
) -> None:
    if model.kind != "contrastive" or task.name != "diagnosis":
        return
    if finetune.classifier == "linear" and "text" in finetune.scope:
        raise ImpossibleCellError(
            f"finetune.scope={finetune.scope} trains the text tower, which a linear head does not use. "
            "Set finetune.classifier=text, or finetune.scope=vision."
        )
    if finetune.classifier == "text":
        _check_absence(domain)


def _check_absence(domain: schema.DomainConfig) -> None:
    said = domain.rule() if isinstance(domain, schema.PublishedDomainConfig) else domain
    if _multi_label(domain) and not getattr(said, "negative_templates", ()):
        raise ImpossibleCellError(
            f"domain={domain.name} is multi-label: text prompts as classifier need domain.negative_templates, "
            "for example ['no sign of {label}']."
        )


def _check_lp_text(model: schema.ModelConfig, domain: schema.DomainConfig) -> None:
    if _multi_label(domain):
        raise ImpossibleCellError(
            f"domain={domain.name} is multi-label: finetune=lp_text is defined by a softmax over the classes alone. "
            "Take finetune=linear_probe, coop or clip_adapter."
        )
    if model.loader in SEVERAL_EMBEDDINGS:
        raise ImpossibleCellError(
            f"{model.name} gives several embeddings for an image: finetune=lp_text is defined for one. Take "
            "finetune=linear_probe, coop or clip_adapter."
        )


def _multi_label(domain: schema.DomainConfig) -> bool:
    return bool(getattr(domain, "multi_label", False)) or getattr(domain, "target", "") == "multilabel"
