"""CLIP and its descendants that keep transformers' `CLIPModel`, and SigLIP with those that keep its `SiglipModel`.

CLIP is Radford et al., 2021, arXiv 2103.00020; SigLIP Zhai et al., 2023, arXiv 2303.15343; SigLIP 2 of fixed resolution
arXiv 2502.14786; MedSigLIP has its class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from vlmbench.backbones.contrastive.dual import HfDual, hf_loader

LAYERS = r"\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"
TOWERS: Mapping[str, str] = {"vision": r"vision_model" + LAYERS, "text": r"text_model" + LAYERS}


class HfClip(HfDual):
    """A `CLIPModel` with its `CLIPProcessor`."""

    part_prefixes: Mapping[str, tuple[str, ...]] = {
        "vision": ("vision_model.", "visual_projection."),
        "text": ("text_model.", "text_projection."),
        "head": ("logit_scale",),
    }
    linear = TOWERS

    def __init__(self, model: nn.Module, processor: Any) -> None:
        config: Any = model.config
        super().__init__(model, processor, feature_dim=config.projection_dim)


class HfSiglip(HfDual):
    """A `SiglipModel` with its `SiglipProcessor`.

    The model scores a pair by sigmoid(cosine x temperature + bias). Neither a softmax over classes nor the logit of a
    presence against its absence depends on the bias, so that it is left out, and no loss reaches it.

    LoRA adapts the encoders' layers. The pooling head of the vision tower holds a fused `nn.MultiheadAttention`, which
    PEFT (0.21) does not adapt faithfully (see `tuning.attention`); it trains with `finetune=full`.
    """

    part_prefixes: Mapping[str, tuple[str, ...]] = {
        "vision": ("vision_model.",),
        "text": ("text_model.",),
        "head": ("logit_scale", "logit_bias"),
    }
    linear = TOWERS
    unreached = ("logit_bias",)

    # The text tower pools its last position and attends to padding, as it was trained to.
    token_inputs = ("input_ids",)
    whole_context = True

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `input_ids` (C, T) in lower case, which the text tower was trained on.

        The tokenizer that SigLIP 2 is released with (Gemma's) keeps capitals.

        Raises:
            ValueError: A text is longer than the context.
        """
        return super().tokenize([text.lower() for text in texts])


load_clip = hf_loader(HfClip, "CLIPModel", "CLIPProcessor")
load_siglip = hf_loader(HfSiglip, "SiglipModel", "SiglipProcessor")
