"""What a model is: where it comes from, what it was trained on, how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from vlmbench.config.schema.fields import number, one_of


@dataclass
class ModelConfig:
    """A pretrained vision-language model, as its YAML file declares it.

    Attributes:
        source: Hub id (`owner/name`), a local folder in the hub's format, or `package:NAME` for a shipped checkpoint.
        revision: Commit of the hub repository; required where `trust_remote_code` is on.
        role: `generalist`, or `specialist` for one grown on medical data.
        pair: Name of the model of the other role grown from the same family.
        pretraining_modalities: Imaging modalities of the pre-training data; decides the exposure.
        download_gib: Size of the download in GiB, told to a user whose cache lacks it.
        learning_rates: Peak learning rate of each finetune method; the same on both sides of a pair.
        default_scope: Scope of a method that is given none.
    """

    name: str = MISSING
    kind: str = one_of("contrastive", "generative", "hosted")
    loader: str = MISSING
    source: str = MISSING
    revision: str | None = None
    trust_remote_code: bool = False
    role: str = one_of("generalist", "specialist")
    pair: str = ""
    family: str = ""
    pretraining_modalities: list[str] = field(default_factory=list)
    pretraining_source: str = ""
    licence: str = ""
    gated: bool = False
    download_gib: float = number(0.0, 0)
    learning_rates: dict[str, float] = field(default_factory=dict)
    default_scope: str = ""


@dataclass
class ContrastiveModelConfig(ModelConfig):
    """A dual encoder of the CLIP family."""

    kind: str = one_of("contrastive", default="contrastive")
    loader: str = one_of("hf_clip", default="hf_clip")
    default_scope: str = "vision"


@dataclass
class GenerativeModelConfig(ModelConfig):
    """A vision tower, a connector and a language model that answers in text.

    Attributes:
        chat_template: Jinja template of the conversation; null takes the checkpoint's own.
        answer_prefix: What stands between the prompt and the answer's first token, for example a space.
        max_length: Longest sequence in tokens, image tokens included; a longer one is an error, never cut.
        processor: Settings that the checkpoint's processor lacks or has wrong (patch_size, ...).
    """

    kind: str = one_of("generative", default="generative")
    loader: str = one_of("hf_llava", default="hf_llava")
    default_scope: str = "ML"
    chat_template: str | None = None
    answer_prefix: str = ""
    max_length: int = number(2048, 16)
    processor: dict[str, Any] = field(default_factory=dict)
