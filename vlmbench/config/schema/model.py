"""What a model is: where it comes from, what it was trained on, how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from vlmbench.config.schema.fields import number, one_of


@dataclass
class FilesConfig:
    """Files that a checkpoint needs from a second place: a tokenizer, a tower, a projection.

    Attributes:
        source: Hub id (`owner/name`), a local folder, or the address of one file or archive (`https://...`).
        revision: Commit of the hub repository.
        repo_type: Kind of the hub repository.
        files: Patterns of the files that are needed; empty takes what a checkpoint has: configuration, safetensors,
            tokenizer, processor.
        sha256: Of the file behind an address, where it was published; null takes what the lock file says.
        download_gib: Size of the download in GiB.
        gated: Whether the owners ask for an account and a consent.
    """

    source: str = MISSING
    revision: str | None = None
    repo_type: str = one_of("model", "dataset", default="model")
    files: list[str] = field(default_factory=list)
    sha256: str | None = None
    download_gib: float = number(0.0, 0)
    gated: bool = False


@dataclass
class ModelConfig(FilesConfig):
    """A pretrained vision-language model, as its YAML file declares it.

    Attributes:
        source: As `FilesConfig`, or `package:NAME` for a shipped checkpoint.
        loader: What reads the checkpoint; a name in `vlmbench.backbones.loaders`.
        companions: What else the checkpoint needs, by the name that the loader knows it by.
        role: `generalist`; `specialist` for one grown on medical data; `baseline` for one that has learned nothing.
        pair: Name of the model of the other role grown from the same family.
        pretraining_modalities: Imaging modalities of the pre-training data; decides the exposure.
        pretraining_source: Where that is said.
        architecture: Name of the published configuration in the package, from which sizes are counted.
        parameters: Parameters in millions by part (vision, connector, text, language), as counted from it.
        image_size: Side of the model's input in pixels; 0 where it depends on the image.
        how_to_get: What a user does to be given the weights, where they are gated or not on the hub.
        learning_rates: Peak learning rate of each finetune method; the same on both sides of a pair.
        default_scope: Scope of a method that is given none.
        settings: Further arguments of the loader.
    """

    name: str = MISSING
    kind: str = one_of("contrastive", "generative", "hosted")
    loader: str = MISSING
    companions: dict[str, FilesConfig] = field(default_factory=dict)
    role: str = one_of("generalist", "specialist", "baseline")
    pair: str = ""
    family: str = ""
    pretraining_modalities: list[str] = field(default_factory=list)
    pretraining_source: str = ""
    licence: str = ""
    architecture: str = ""
    parameters: dict[str, float] = field(default_factory=dict)
    image_size: int = number(0, 0)
    how_to_get: str = ""
    learning_rates: dict[str, float] = field(default_factory=dict)
    default_scope: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


CONTRASTIVE_LOADERS = (
    *("hf_clip", "hf_siglip", "hf_blip", "hf_blip2", "open_clip", "medclip", "pmc_clip", "conch"),
    "random_features",
)
GENERATIVE_LOADERS = ("hf_vlm", "llava_original", "vila", "xraygpt")


@dataclass
class ContrastiveModelConfig(ModelConfig):
    """A dual encoder of the CLIP family."""

    kind: str = one_of("contrastive", default="contrastive")
    loader: str = one_of(*CONTRASTIVE_LOADERS, default="hf_clip")
    default_scope: str = "vision"


@dataclass
class GenerativeModelConfig(ModelConfig):
    """A vision tower, a connector and a language model that answers in text.

    Attributes:
        chat_template: Jinja template of the conversation; null takes the checkpoint's own.
        answer_prefix: What stands between the prompt and the answer's first token, for example a space.
        max_length: Longest sequence in tokens, image tokens included; a longer one is an error, never cut.
        processor: Settings that the checkpoint's processor lacks or has wrong (patch_size, ...); under
            `image_processor` those of its image processor, for example `{max_pixels: 262144}`.
        float16: Whether the activations fit float16; where not, `trainer.precision=16-mixed` is refused.
    """

    kind: str = one_of("generative", default="generative")
    loader: str = one_of(*GENERATIVE_LOADERS, default="hf_vlm")
    default_scope: str = "ML"
    chat_template: str | None = None
    answer_prefix: str = ""
    max_length: int = number(2048, 16)
    processor: dict[str, Any] = field(default_factory=dict)
    float16: bool = True


@dataclass
class HostedModelConfig(ModelConfig):
    """A model behind an OpenAI-compatible endpoint.

    `source` is the name that it goes by there, `settings` holds further fields of each request, for example
    `{temperature: 0}`. There is no field for a key: that is in the environment alone.

    Attributes:
        base_url: Address of the endpoint, for example `http://localhost:8000/v1`.
        api_key_env: Name of the environment variable that holds the key; empty where the endpoint asks for none.
        instructions: System message; empty sends none.
        token_field: What the request calls the most tokens of an answer; older servers know `max_tokens` alone.
        extra_tokens: Tokens on top of `task.max_new_tokens`, for models that reason before they answer.
        max_side: Longest side, in pixels, of an image that is sent as it is; a larger one is scaled down to it.
        concurrency: Most requests at a time.
        retries: Tries after the first, for faults that pass: 408, 409, 429, 5xx, lost connections, broken answers.
        timeout: Seconds without a byte until a request counts as lost.
        cache: Folder that keeps every answer, so that none is paid for twice.
    """

    kind: str = one_of("hosted", default="hosted")
    loader: str = one_of("openai", default="openai")
    base_url: str = MISSING
    api_key_env: str = ""
    instructions: str = ""
    token_field: str = one_of("max_completion_tokens", "max_tokens", default="max_completion_tokens")
    extra_tokens: int = number(0, 0, 1_000_000)
    max_side: int = number(1024, 32, 8192)
    concurrency: int = number(4, 1, 256)
    retries: int = number(6, 0, 20)
    timeout: float = number(300.0, 1, 3600)
    cache: str = "~/.cache/vlmbench/answers"
