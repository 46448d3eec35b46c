"""What tells one architecture of generative models from another: names of parts, and how an image enters the text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from vlmbench.backbones.generative.vision import Before, Boundary, Within

_LAYERS = r"model\.language_model\.layers\.\d+\."
_DECODER = _LAYERS + r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
_TOWER = r"model\.vision_tower\."
_CLIP_TOWER = _TOWER + r"encoder\.layers\.{layers}\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"


@dataclass(frozen=True)
class Family:
    """One architecture; patterns match whole paths of the transformers class.

    A prefix that ends with a dot is a module, one that does not is a parameter of its own; of a list of modules, each
    is one.

    Attributes:
        vision: Prefixes of the vision tower's parameters.
        connector: Prefixes of the connector's.
        language: Prefixes of the language model's.
        vision_linear: Pattern of the tower's Linear layers; `{layers}` stands for the layers that are read.
        connector_linear: Pattern of the connector's Linear layers; empty where it has none.
        language_linear: Pattern of the language model's Linear layers.
        vision_layer: Pattern that begins a parameter's path in the tower, with the layer's number as its group.
        unread: Pattern of parameters behind what the connector reads: no gradient reaches them.
        placeholder: What the chat template writes where the image goes.
        token: What the image becomes, repeated once a feature.
        before: What the processor writes before the repeated tokens.
        after: What it writes after them.
        image_first: Whether the image's tokens stand before everything, the begin token too.
        type_ids: Input that marks image tokens, where the model takes one.
        end: What closes an answer in the model's own training; empty where it is the tokenizer's end token.
        thought: Pattern of what a model may write before its answer and that is no part of it.
        tower: Path of the module that is called with the pixels.
        mergers: Where that module ends in the connector: the names of its parts in it.
        final: Whether a `vision_feature_layer` of -1 is the tower's final output rather than its last hidden state.
    """

    vision: tuple[str, ...] = ("model.vision_tower.",)
    connector: tuple[str, ...] = ("model.multi_modal_projector.",)
    language: tuple[str, ...] = ("model.language_model.", "lm_head.")
    vision_linear: str = _CLIP_TOWER
    connector_linear: str = r"model\.multi_modal_projector\.linear_[12]"
    language_linear: str = _DECODER
    vision_layer: str = _TOWER + r"encoder\.layers?\.(\d+)\."
    unread: str = _TOWER + r"(post_layernorm|head)\..*"
    placeholder: str = "<image>"
    token: str = "<image>"  # noqa: S105 - a word of the vocabulary, no secret
    before: str = ""
    after: str = ""
    image_first: bool = False
    type_ids: str = ""
    end: str = ""
    thought: str = ""
    tower: str = "model.vision_tower"
    mergers: tuple[str, ...] = ()
    final: bool = False

    def prefixes(self, model: nn.Module) -> dict[str, tuple[str, ...]]:
        """Return, for each part of a network, the prefixes of its parameters.

        A list of modules gives way to its modules: a list cannot be trained as one module.
        """
        modules = dict(model.named_modules())

        def each(prefix: str) -> list[str]:
            found = modules.get(prefix.rstrip("."))
            return [f"{prefix}{i}." for i in range(len(found))] if isinstance(found, nn.ModuleList) else [prefix]

        parts = {"vision": self.vision, "connector": self.connector, "language": self.language}
        return {part: tuple(one for prefix in own for one in each(prefix)) for part, own in parts.items()}

    def boundary(self, config: Any) -> Boundary:
        """Return where the connector begins."""
        vision = config.vision_config
        if self.mergers:
            deep = [f"deepstack_merger_list.{i}" for i in range(len(getattr(vision, "deepstack_visual_indexes", [])))]
            return Within(self.tower, (*self.mergers, *deep), vision.spatial_merge_size**2)
        layers = getattr(config, "vision_feature_layer", None)
        if layers is None or (self.final and layers == -1):
            layers = []
        chosen = tuple(layers) if isinstance(layers, list | tuple) else (layers,)
        return Before(self.tower, chosen, vision.num_hidden_layers)

    def adapted(self, config: Any) -> dict[str, str]:
        """Return the patterns of the Linear layers that LoRA adapts, those of the vision layers that are read."""
        read = layers_read(config)
        layers = r"\d+" if read is None else f"({'|'.join(map(str, range(read)))})"
        return {"vision": self.vision_linear.replace("{layers}", layers), "language": self.language_linear}

    def reaches(self, name: str, config: Any) -> bool:
        """Tell whether a loss reaches a parameter."""
        read, layer = layers_read(config), re.match(self.vision_layer, name)
        behind = read is not None and layer is not None and int(layer[1]) >= read
        return not behind and not re.fullmatch(self.unread, name)


LLAVA = Family()
# The learned line break between rows of tiles is a parameter of the model itself.
LLAVA_TILES = replace(LLAVA, connector=("model.multi_modal_projector.", "model.image_newline"))
QWEN2_VL = Family(
    vision=("model.visual.patch_embed.", "model.visual.pos_embed.", "model.visual.blocks."),
    connector=("model.visual.merger.",),
    vision_linear=r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])",
    connector_linear=r"model\.visual\.merger\.mlp\.[02]",
    unread="",
    placeholder="<|image_pad|>",
    token="<|image_pad|>",  # noqa: S106 - as above
    type_ids="mm_token_type_ids",
    tower="model.visual",
    mergers=("merger",),
)

FAMILIES: dict[str, Family] = {
    "llava": LLAVA,
    "llava_next": LLAVA_TILES,
    "llava_onevision": LLAVA_TILES,
    "qwen2_vl": QWEN2_VL,
    # The tower's layers end in the same names as the language model's.
    "qwen2_5_vl": replace(
        QWEN2_VL, vision_linear=r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)"
    ),
    "qwen3_vl": replace(
        QWEN2_VL,
        connector=("model.visual.merger.", "model.visual.deepstack_merger_list."),
        vision_linear=r"model\.visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc[12])",
        connector_linear=r"model\.visual\.(merger|deepstack_merger_list\.\d+)\.linear_fc[12]",
    ),
    "gemma3": Family(
        connector_linear="",
        unread=_TOWER + r"head\..*",
        placeholder="<start_of_image>",
        token="<image_soft_token>",  # noqa: S106 - as above
        before="\n\n<start_of_image>",
        after="<end_of_image>\n\n",
        type_ids="token_type_ids",
        end="<end_of_turn>",
        thought=r"<unused94>.*?(<unused95>|\Z)",  # MedGemma 1.5 may think first
    ),
    "internvl": Family(
        vision_linear=r"model\.vision_tower\.encoder\.layer\.{layers}\."
        r"(attention\.(q_proj|k_proj|v_proj|projection_layer)|mlp\.fc[12])",
        unread="",
        placeholder="<IMG_CONTEXT>",
        token="<IMG_CONTEXT>",  # noqa: S106 - as above
        before="<img>",
        after="</img>",
        final=True,
    ),
    "blip-2": Family(
        vision=("vision_model.",),
        connector=("qformer.", "language_projection.", "query_tokens"),
        language=("language_model.",),
        vision_linear=r"vision_model\.encoder\.layers\.\d+\.(self_attn\.(qkv|projection)|mlp\.fc[12])",
        connector_linear=r"language_projection|qformer\.encoder\.layer\.\d+\.((cross)?attention\."
        r"(attention\.(query|key|value)|output\.dense)|(intermediate|output)_query\.dense)",
        language_linear=r"language_model\.model\.decoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|fc[12])",
        unread="",
        image_first=True,
        end="\n",
        tower="vision_model",
    ),
}


def family_of(config: Any) -> Family:
    """Return the family of a transformers configuration.

    Raises:
        ValueError: No family of that `model_type`; the message lists those that there are.
    """
    if config.model_type not in FAMILIES:
        raise ValueError(f"model_type {config.model_type!r} is not known here. Known: {', '.join(FAMILIES)}.")
    return FAMILIES[config.model_type]


def layers_read(config: Any) -> int | None:
    """Return how many vision layers the connector's features pass through; None for all of them."""
    selected = getattr(config, "vision_feature_layer", None)
    if selected is None:
        return None
    deepest = max(selected) if isinstance(selected, list | tuple) else selected
    # hidden_states[0] is the embedding: hidden_states[k] is what layer k-1 leaves.
    return int(deepest) if deepest >= 0 else config.vision_config.num_hidden_layers + 1 + int(deepest)


def room_for_gaps(config: Any) -> float:
    """Return how long a row may be with places inside it that hold no token; infinite where attention sees all of it.

    Where attention slides over a window, as in Gemma 3, such places would push tokens out of the window.
    """
    text = config.get_text_config()
    slides = getattr(text, "use_sliding_window", True)
    return getattr(text, "sliding_window", None) or math.inf if slides else math.inf
