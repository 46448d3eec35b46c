"""LLaVA's own format, before transformers had the class: `llava_mistral`, `llava_llama`, `llava_qwen2`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmbench.backbones.base import Conversation
from vlmbench.backbones.generative.family import Family
from vlmbench.backbones.generative.spliced import SplicedVlm, image_settings, place_of
from vlmbench.weights.release import CheckpointError, Release, described, loaded, shapes, vit_sizes

TOWER = "model.vision_tower.vision_tower.vision_model."
# From the names of LLaVA's code to those of transformers.
KEY_MAPPING = {
    rf"^{re.escape(TOWER)}": "model.vision_tower.",
    r"^model\.mm_projector\.0\.": "model.multi_modal_projector.linear_1.",
    r"^model\.mm_projector\.2\.": "model.multi_modal_projector.linear_2.",
    r"^model\.(?=embed_tokens|layers|norm)": "model.language_model.",
}
CLIP_HEAD = 64  # width of an attention head in every vision tower of CLIP (Radford et al. 2021, table 20)


def load_llava_original(
    release: Release,
    conversation: Conversation,
    *,
    image_token: str = "<unk>",  # noqa: S107 - a word of the vocabulary, no secret
) -> SplicedVlm:
    """Load a checkpoint of LLaVA's code; names are mapped while it is read, nothing is written and no code runs.

    The vision tower is the companion `tower`, a CLIP, if there is one, and else the one among the checkpoint's own
    weights. LLaVA-Med's program reads CLIP's published tower although its checkpoint holds another: naming
    `openai/clip-vit-large-patch14-336` as the companion does what that program does.

    Args:
        release: The companion `tower`, where the checkpoint holds none or another one is wanted.
        conversation: The image is `<image>` in its template.
        image_token: Word of the vocabulary that no text becomes; features stand on its places.

    Raises:
        CheckpointError: The folder lacks weights, no tower is there, or LLaVA 1.5 has no such projector or images.
    """
    import transformers as hf

    folder, tower = release.folder, release.companions.get("tower")
    raw = described(folder / "config.json", "the model's configuration")
    if (raw.get("mm_projector_type"), raw.get("image_aspect_ratio")) != ("mlp2x_gelu", "pad"):
        raise CheckpointError(
            f"{folder} asks for the projector {raw.get('mm_projector_type')!r} and images made square by "
            f"{raw.get('image_aspect_ratio')!r}; this loader reads mlp2x_gelu and pad, as LLaVA 1.5 has them."
        )
    text_config = language_config(raw)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder, config=text_config)
    vision_config = hf.CLIPVisionConfig.from_pretrained(tower) if tower else tower_config(folder, raw)
    side, drops_class = vision_config.image_size, raw.get("mm_vision_select_feature", "patch") == "patch"
    config = hf.LlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_index=place_of(tokenizer, image_token),
        image_seq_length=(side // vision_config.patch_size) ** 2 + (0 if drops_class else 1),
        vision_feature_layer=raw["mm_vision_select_layer"],
        vision_feature_select_strategy="default" if drops_class else "full",
    )
    model = loaded(
        hf.LlavaForConditionalGeneration,
        folder,
        release.dtype,
        elsewhere=("model.vision_tower.",) if tower else (),
        config=config,
        key_mapping=KEY_MAPPING,
    )
    if tower:
        model.model.vision_tower = loaded(hf.CLIPVisionModel, tower, release.dtype, config=vision_config)
    # Padded to a square with CLIP's mean colour, then CLIP's own preprocessing.
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    return SplicedVlm(
        model,
        hf.LlavaImageProcessorPil(**{"do_pad": True, **sizes, **image_settings(conversation)}),
        tokenizer,
        conversation,
        family=Family(token=image_token),
        image_tokens=config.image_seq_length,
    )


def language_config(raw: Mapping[str, Any]) -> Any:
    """Return the language model's configuration: the fields of LLaVA's that are its own.

    Raises:
        CheckpointError: The architecture is not one of LLaVA's.
    """
    from transformers import AutoConfig

    name = "".join(raw.get("architectures") or [""])
    found = re.fullmatch(r"Llava(Mistral|Llama|Qwen2)ForCausalLM", name)
    if not found:
        raise CheckpointError(f"The architecture {name!r} is none of LLaVA's on Mistral, LLaMA or Qwen2.")
    kind = found[1].lower()
    own = set(vars(AutoConfig.for_model(kind))) | {"rope_theta", "rope_scaling"}
    left_out = {"architectures", "model_type", "transformers_version", "_name_or_path"}
    return AutoConfig.for_model(kind, **{key: raw[key] for key in raw.keys() & own - left_out})


def tower_config(folder: Path, raw: Mapping[str, Any]) -> Any:
    """Return the configuration of the CLIP tower among a checkpoint's weights, from their shapes.

    Raises:
        CheckpointError: There is no tower among them.
    """
    from transformers import CLIPVisionConfig

    sizes = shapes(folder, TOWER)
    if "embeddings.class_embedding" not in sizes:
        raise CheckpointError(
            f"No vision tower is among the weights in {folder}. Name the CLIP that it was trained with: "
            f"'+model.companions={{tower: {{source: {raw.get('mm_vision_tower')}}}}}'."
        )
    patches, positions = "embeddings.patch_embedding.weight", "embeddings.position_embedding.weight"
    vision = vit_sizes(sizes, patches, positions, "encoder.layers.0.mlp.fc1.weight")
    return CLIPVisionConfig(
        **vision,
        num_hidden_layers=len({key.split(".")[2] for key in sizes if key.startswith("encoder.layers.")}),
        num_attention_heads=vision["hidden_size"] // CLIP_HEAD,
    )
