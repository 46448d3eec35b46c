"""What tells one architecture of generative models from another: names of parts, and how an image enters the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_ATTENTION = r"self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj"
_CLIP_TOWER = r"model\.vision_tower\.encoder\.layers\.{layers}\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"


@dataclass(frozen=True)
class Family:
    """One architecture; patterns match whole module paths of the transformers class.

    Attributes:
        vision: Prefixes of the vision tower's parameters.
        connector: Prefixes of the connector's.
        language: Prefixes of the language model's.
        vision_linear: Pattern of the tower's Linear layers; `{layers}` stands for the layers that are read.
        connector_linear: Pattern of the connector's Linear layers; empty where it has none.
        language_linear: Pattern of the language model's Linear layers.
        placeholder: What the chat template writes where the image goes.
        token: What the image becomes, repeated once a feature.
        before: What the processor writes before the repeated tokens.
        after: What it writes after them.
        type_ids: Input that marks image tokens, where the model takes one.
    """

    vision: tuple[str, ...] = ("model.vision_tower.",)
    connector: tuple[str, ...] = ("model.multi_modal_projector.",)
    language: tuple[str, ...] = ("model.language_model.", "lm_head.")
    vision_linear: str = _CLIP_TOWER
    connector_linear: str = r"model\.multi_modal_projector\.linear_[12]"
    language_linear: str = rf"model\.language_model\.layers\.\d+\.({_ATTENTION})"
    placeholder: str = "<image>"
    token: str = "<image>"  # noqa: S105 - a word of the vocabulary, no secret
    before: str = ""
    after: str = ""
    type_ids: str = ""


FAMILIES: dict[str, Family] = {"llava": Family()}


def family_of(config: Any) -> Family:
    """Return the family of a transformers configuration.

    Raises:
        ValueError: No family of that `model_type`; the message lists those that there are.
    """
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"model_type {config.model_type!r} is no generative architecture that is known here. "
            f"Known: {', '.join(FAMILIES)}."
        )
    return FAMILIES[config.model_type]
