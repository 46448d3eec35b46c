"""BLIP (Li et al., 2022, arXiv 2201.12086) and BLIP-2 (Li et al., 2023, arXiv 2301.12597) by their contrastive side.

Both are read from the checkpoints made for image-text matching; the matching head itself needs every pair of image and
text, and is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.backbones.base import device_of
from vlmbench.backbones.contrastive.dual import Encoded, HfDual, hf_loader
from vlmbench.backbones.contrastive.released import BERT_LINEAR

# Where training starts the temperature (salesforce/BLIP, models/blip_retrieval.py; LAVIS, blip2_qformer.py). The value
# it ends at is in neither released class; a ranking does not depend on it.
TEMPERATURE = 0.07
VISION_LINEAR = r"vision_model\.encoder\.layers\.\d+\.(self_attn\.(qkv|projection)|mlp\.fc[12])"


class Itc(HfDual):
    """What both share: the constant temperature, and the vision tower's class token as what a probe sees."""

    @property
    def logit_scale(self) -> Tensor:
        """The inverse temperature, a constant."""
        return torch.tensor(1 / TEMPERATURE, device=device_of(self.model))

    def features(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to the class token of the vision tower's output (B, F), before any projection."""
        return self.model.vision_model(pixel_values=pixels).last_hidden_state[:, 0]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to `encode`'s embeddings."""
        return self.encode(pixels).embeddings

    def encode(self, pixels: Tensor) -> Encoded:
        """Map (B, 3, H, W) to the class token, and to what the vision tower's states (B, T, F) are projected to."""
        states = self.model.vision_model(pixel_values=pixels).last_hidden_state
        return Encoded(states[:, 0], self.projected(states))

    def projected(self, states: Tensor) -> Tensor:
        """Map the vision tower's output (B, T, F) to embeddings (B, D) or (B, Q, D)."""
        raise NotImplementedError


class HfBlip(Itc):
    """A `BlipForImageTextRetrieval` with its `BlipProcessor`.

    The projections into the joint space belong to no tower and train where both towers do.
    """

    part_prefixes: Mapping[str, tuple[str, ...]] = {
        "vision": ("vision_model.",),
        "text": ("text_encoder.",),
        "connector": ("vision_proj.", "text_proj."),
        "head": ("itm_head.",),
    }
    linear: Mapping[str, str] = {"vision": VISION_LINEAR, "text": r"text_encoder" + BERT_LINEAR}

    def __init__(self, model: nn.Module, processor: Any) -> None:
        super().__init__(model, processor)
        # The text tower reads no image here.
        layers = range(self.model.config.text_config.num_hidden_layers)
        self.unreached = ("itm_head.", *(f"text_encoder.encoder.layer.{i}.crossattention." for i in layers))

    def projected(self, states: Tensor) -> Tensor:
        """Map the vision tower's output (B, T, F) to the projected class token (B, D)."""
        return self.model.vision_proj(states[:, 0])

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D)."""
        return self.model.text_proj(self.model.text_encoder(**self.placed(tokens)).last_hidden_state[:, 0])


class HfBlip2(Itc):
    """A `Blip2ForImageTextRetrieval` with its `Blip2Processor`: the best of Q query embeddings counts.

    One Q-Former serves both sides: self-attention reads queries and text alike, cross-attention and one set of
    feed-forward layers serve the queries, another set the text. Only the last is text's own. The rest, with the
    queries and the projections, is the connector, which trains where both towers do.
    """

    linear: Mapping[str, str] = {
        "vision": VISION_LINEAR,
        "text": r"qformer\.encoder\.layer\.\d+\.(intermediate|output)\.dense",
        "connector": r"qformer\.encoder\.layer\.\d+\."
        r"((cross)?attention\.(attention\.(query|key|value)|output\.dense)|(intermediate|output)_query\.dense)",
    }
    unreached = ("itm_head.",)

    def __init__(self, model: nn.Module, processor: Any) -> None:
        config: Any = model.config
        qformer = config.qformer_config
        super().__init__(model, processor, context_length=qformer.max_position_embeddings)
        self.processor.num_query_tokens = config.num_query_tokens
        layers = [f"qformer.encoder.layer.{i}." for i in range(qformer.num_hidden_layers)]
        shared = ("attention.", "crossattention.", "intermediate_query.", "output_query.")
        self.part_prefixes = {
            "vision": ("vision_model.",),
            "text": ("embeddings.", *(f"{at}{name}" for at in layers for name in ("intermediate.", "output."))),
            "connector": (
                *("query_tokens", "qformer.layernorm.", "vision_projection.", "text_projection."),
                *(f"{at}{name}" for at in layers for name in shared),
            ),
            "head": ("itm_head.",),
        }

    def projected(self, states: Tensor) -> Tensor:
        """Map the vision tower's output (B, T, F) to the projected embeddings of the queries (B, Q, D)."""
        queries = self.model.query_tokens.expand(len(states), -1, -1)
        # transformers holds the Q-Former in float32 under half-precision weights.
        out = self.model.qformer(query_embeds=queries, encoder_hidden_states=states).last_hidden_state
        return self.model.vision_projection(out.to(self.model.vision_projection.weight.dtype))

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D)."""
        placed = self.placed(tokens)
        out = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=placed["input_ids"]),
            query_length=0,
            attention_mask=placed["attention_mask"],
        ).last_hidden_state[:, 0]
        return self.model.text_projection(out.to(self.model.text_projection.weight.dtype))


load_blip = hf_loader(HfBlip, "BlipForImageTextRetrieval", "BlipProcessor")
load_blip2 = hf_loader(HfBlip2, "Blip2ForImageTextRetrieval", "Blip2Processor")
