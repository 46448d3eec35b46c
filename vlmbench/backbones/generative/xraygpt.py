"""XrayGPT: BLIP-2's tower and Q-Former under LAVIS's names, one Linear layer, and a Vicuna trained on radiology."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vlmbench.backbones.base import Conversation
from vlmbench.backbones.generative.family import FAMILIES
from vlmbench.backbones.generative.spliced import SplicedVlm, image_settings, place_of
from vlmbench.weights.release import CheckpointError, Release, check_complete, loaded, need, unpickled, vit_sizes

# Of LAVIS's `create_eva_vit_g`: the published tower's last block is not used, and a head is 88 wide.
BLOCKS, TOWER_HEAD, BERT_HEAD = 39, 88, 64
FILES = {
    "vit": "eva_vit_g.pth of LAVIS",
    "qformer": "blip2_pretrained_flant5xxl.pth of LAVIS",
    "projection": "xraygpt_pretrained1.pth of XrayGPT",
}
# From the names in these files to those of transformers; the first that matches counts.
KEYS = {
    r"^cls_token": "vision_model.embeddings.class_embedding",
    r"^pos_embed": "vision_model.embeddings.position_embedding",
    r"^patch_embed\.proj\.": "vision_model.embeddings.patch_embedding.",
    r"^blocks\.(\d+)\.norm": r"vision_model.encoder.layers.\1.layer_norm",
    r"^blocks\.(\d+)\.attn\.proj\.": r"vision_model.encoder.layers.\1.self_attn.projection.",
    r"^blocks\.(\d+)\.attn\.": r"vision_model.encoder.layers.\1.self_attn.",
    r"^blocks\.": "vision_model.encoder.layers.",
    r"^ln_vision\.": "vision_model.post_layernorm.",
    r"^Qformer\.bert\.embeddings\.LayerNorm\.": "qformer.layernorm.",
    r"^Qformer\.bert\.(.*attention)\.self\.": r"qformer.\1.attention.",
    r"^Qformer\.bert\.": "qformer.",
    r"^llama_proj\.": "language_projection.",
}
VISION_SIZES = (
    "vision_model.embeddings.patch_embedding.weight",
    "vision_model.embeddings.position_embedding",
    "vision_model.encoder.layers.0.mlp.fc1.weight",
)
FAMILY = replace(
    FAMILIES["blip-2"],
    language_linear=r"language_model\.model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)",
    placeholder="<ImageHere>",
    token="<unk>",  # noqa: S106 - a word of the vocabulary, no secret; no text becomes it
    image_first=False,
    end="",
)


def load_xraygpt(release: Release, conversation: Conversation) -> SplicedVlm:
    """Load XrayGPT from its parts; names are mapped while they are read, nothing is written and no code runs.

    Args:
        release: The Vicuna in transformers' format; companions are `FILES`, each itself or in a folder of its own.
        conversation: The image is `<ImageHere>` in its template.

    Raises:
        CheckpointError: One of the parts is missing or not complete.
    """
    import transformers as hf

    folder = release.folder
    state: dict[str, Tensor] = {}
    for name, what in FILES.items():
        held = unpickled(need(release.companions.get(name), what, f"companions.{name}"))
        state |= renamed(held.get("model", held))
    try:
        vision = vit_sizes({name: value.shape for name, value in state.items()}, *VISION_SIZES)
        _, queries, hidden = state["query_tokens"].shape
        query_mlp = state["qformer.encoder.layer.0.intermediate_query.dense.weight"].shape[0]
    except KeyError as error:
        raise CheckpointError(f"The files of model.companions do not hold {error}: check each source.") from error
    llm = loaded(hf.AutoModelForCausalLM, folder, release.dtype)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    config = hf.Blip2Config(
        vision_config=hf.Blip2VisionConfig(
            **vision, num_hidden_layers=BLOCKS, num_attention_heads=vision["hidden_size"] // TOWER_HEAD
        ),
        qformer_config=hf.Blip2QFormerConfig(
            hidden_size=hidden,
            intermediate_size=query_mlp,
            num_hidden_layers=len([key for key in state if key.endswith(".attention.output.dense.weight")]),
            num_attention_heads=hidden // BERT_HEAD,
            # The original never trains the Q-Former and keeps it as at inference.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        text_config=llm.config,
        num_query_tokens=queries,
        image_token_index=place_of(tokenizer, FAMILY.token),
    )
    with torch.device("meta"):
        model = hf.Blip2ForConditionalGeneration(config)
    model.language_model = llm
    wanted = {name: value.shape for name, value in model.state_dict().items() if not name.startswith("language_model.")}
    differ = [name for name in wanted.keys() & state.keys() if wanted[name] != state[name].shape]
    told = {"missing_keys": sorted(wanted.keys() - state.keys()), "mismatched_keys": differ}
    check_complete(told, where="the files of model.companions")
    model.load_state_dict({name: state[name].to(release.dtype) for name in wanted}, strict=False, assign=True)
    # LAVIS normalises behind the tower with torch's default, within it with the configuration's epsilon.
    model.vision_model.post_layernorm.eps = 1e-5
    side = vision["image_size"]
    return SplicedVlm(
        model.eval(),
        hf.BlipImageProcessorPil(**{"size": {"height": side, "width": side}, **image_settings(conversation)}),
        tokenizer,
        conversation,
        family=FAMILY,
        image_tokens=queries,
        ending="###",
    )


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors under transformers' names, the biases of queries and values joined, with zeros for the keys."""
    out = {}
    for name, value in state.items():
        if name.endswith(".attn.q_bias"):
            values = state[name.replace("q_bias", "v_bias")]
            name, value = name.replace("q_bias", "qkv.bias"), torch.cat([value, torch.zeros_like(values), values])
        pattern = next((old for old in KEYS if re.match(old, name)), "^")
        out[re.sub(pattern, KEYS.get(pattern, ""), name)] = value
    return out
