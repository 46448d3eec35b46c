"""VILA 1.5 and VILA-M3: a language model, a vision tower and a projector in folders of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vlmbench.backbones.generative.family import Family
from vlmbench.backbones.generative.inputs import CheckpointError, check_complete
from vlmbench.backbones.generative.spliced import SplicedVlm, build_empty, image_settings, need

# From the names of VILA's projector to those of `Downsample`.
PROJECTOR_KEYS = {"layers.1.": "norm.", "layers.2.": "linear_1.", "layers.4.": "linear_2."}


class Downsample(nn.Module):
    """VILA's projector `mlp_downsample`: a square of two by two patches becomes one token (Lin et al. 2024, sec. 3).

    Args:
        vision_width: Width of the tower's features.
        text_width: Width of the language model.
    """

    def __init__(self, vision_width: int, text_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * vision_width)
        self.linear_1 = nn.Linear(4 * vision_width, text_width)
        self.linear_2 = nn.Linear(text_width, text_width)

    def forward(self, patches: Tensor) -> Tensor:
        """Map (B, S * S, F) patches to (B, ceil(S / 2) ** 2, text_width) tokens; an odd side is padded with zeros."""
        batch, count, width = patches.shape
        side = round(count**0.5)
        grid = patches.view(batch, side, side, width)
        grid = nn.functional.pad(grid, (0, 0, 0, side % 2, 0, side % 2))
        half = grid.shape[1] // 2
        # The four patches of a square follow one another as: upper left, upper right, lower left, lower right; the
        # squares are read down each column first.
        squares = grid.view(batch, half, 2, half, 2, width).permute(0, 3, 1, 2, 4, 5)
        squares = squares.reshape(batch, half * half, 4 * width)
        hidden: Tensor = self.linear_2(nn.functional.gelu(self.linear_1(self.norm(squares))))
        return hidden


def load_vila(
    folder: str,
    *,
    dtype: torch.dtype,
    companions: Mapping[str, str] | None = None,
    chat_template: str | None = None,
    answer_prefix: str = "",
    max_length: int = 2048,
    processor_settings: Mapping[str, Any] | None = None,
    image_token: str = "<|reserved_special_token_0|>",  # noqa: S107 - a word of the vocabulary, no secret
    stops: tuple[str, ...] = ("<|eot_id|>",),
    trust_remote_code: bool = False,
) -> SplicedVlm:
    """Load VILA's three folders; names are mapped while they are read, nothing is written.

    Args:
        folder: Where `llm/`, `vision_tower/` and `mm_projector/` are.
        dtype: Type of the weights.
        companions: Not used: the release is complete.
        chat_template: As `HfVlm`; the image is `<image>` in it.
        answer_prefix: As `HfVlm`.
        max_length: As `HfVlm`.
        processor_settings: Under `image_processor`, what differs from the release's.
        image_token: Word of the vocabulary that no text becomes; features stand on its places.
        stops: Words that end generation beside the end token.
        trust_remote_code: Not used: no code of the repository runs.

    Raises:
        CheckpointError: One of the folders is missing, its weights are not complete, or VILA 1.5 has no such projector.
    """
    from transformers import (
        AutoImageProcessor,
        AutoModelForCausalLM,
        AutoTokenizer,
        LlavaConfig,
        LlavaForConditionalGeneration,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    path = Path(folder)
    parts = {"llm": "the language model", "vision_tower": "the vision tower", "mm_projector": "the projector"}
    files = {name: need(path / name / "config.json", f"of {what}") for name, what in parts.items()}
    raw = json.loads(need(path / "config.json", "the model's configuration").read_text(encoding="utf-8"))
    kind = json.loads(files["mm_projector"].read_text(encoding="utf-8")).get("mm_projector_type")
    if kind != "mlp_downsample" or raw.get("s2"):
        raise CheckpointError(
            f"{folder} has the projector {kind!r}{' and images at several scales' if raw.get('s2') else ''}; "
            "this loader reads mlp_downsample at one scale, as VILA 1.5 has it."
        )
    reading = {"dtype": dtype, "weights_only": True, "output_loading_info": True}
    llm, of_llm = AutoModelForCausalLM.from_pretrained(path / "llm", **reading)
    # The pooling head stands behind the layer that is read.
    vision = SiglipVisionConfig.from_pretrained(path / "vision_tower", vision_use_head=False)
    tower, of_tower = SiglipVisionModel.from_pretrained(path / "vision_tower", config=vision, **reading)
    check_complete(of_llm, of_tower, where=folder)
    tokenizer = AutoTokenizer.from_pretrained(path / "llm")
    side = -(-(vision.image_size // vision.patch_size) // 2)
    config = LlavaConfig(
        vision_config=vision,
        text_config=llm.config,
        image_token_index=tokenizer.convert_tokens_to_ids(image_token),
        image_seq_length=side**2,
        vision_feature_layer=raw["mm_vision_select_layer"],
        vision_feature_select_strategy="full",
    )
    model = build_empty(LlavaForConditionalGeneration, config)
    model.model.language_model, model.lm_head, model.model.vision_tower = llm.model, llm.lm_head, tower
    projector = load_projector(path / "mm_projector", vision.hidden_size, llm.config.hidden_size)
    model.model.multi_modal_projector, model.generation_config = projector.to(dtype), llm.generation_config
    images = AutoImageProcessor.from_pretrained(
        path / "vision_tower", backend="pil", **image_settings(processor_settings)
    )
    return SplicedVlm(
        model.eval(),
        images,
        tokenizer,
        family=Family(token=image_token),
        image_tokens=config.image_seq_length,
        stops=tuple(stops),
        chat_template=chat_template,
        answer_prefix=answer_prefix,
        max_length=max_length,
    )


def load_projector(folder: Path, vision_width: int, text_width: int) -> Downsample:
    """Return the projector with the weights of `model.safetensors`."""
    renamed = {}
    for name, value in load_file(need(folder / "model.safetensors", "the projector's weights")).items():
        (old,) = (old for old in PROJECTOR_KEYS if name.startswith(old))
        renamed[name.replace(old, PROJECTOR_KEYS[old], 1)] = value
    projector = Downsample(vision_width, text_width)
    projector.load_state_dict(renamed)
    return projector
