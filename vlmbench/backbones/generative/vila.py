"""VILA 1.5 and VILA-M3: a language model, a vision tower and a projector in folders of their own."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vlmbench.backbones.base import Conversation
from vlmbench.backbones.generative.family import Family
from vlmbench.backbones.generative.spliced import SplicedVlm, image_settings, place_of
from vlmbench.weights.release import CheckpointError, Release, described, fill, loaded, need

PARTS = {"llm": "the language model", "vision_tower": "the vision tower", "mm_projector": "the projector"}


class Squares(nn.Module):
    """VILA's downsampling (Lin et al. 2024, section 3): a square of two by two patches becomes one token."""

    def forward(self, patches: Tensor) -> Tensor:
        """Map (B, S * S, F) patches to (B, ceil(S / 2) ** 2, 4 F); an odd side is padded with zeros.

        A token's patches are upper left, upper right, lower left, lower right; tokens go down each column first.
        """
        batch, count, width = patches.shape
        side = round(count**0.5)
        grid = nn.functional.pad(patches.view(batch, side, side, width), (0, 0, 0, side % 2, 0, side % 2))
        half = grid.shape[1] // 2
        squares = grid.view(batch, half, 2, half, 2, width).permute(0, 3, 1, 2, 4, 5)
        return squares.reshape(batch, half * half, 4 * width)


def projector(vision_width: int, text_width: int) -> nn.Sequential:
    """Return VILA's projector `mlp_downsample`; its layers are numbered as in the release."""
    wide = 4 * vision_width
    layers = nn.Linear(wide, text_width), nn.GELU(), nn.Linear(text_width, text_width)
    return nn.Sequential(Squares(), nn.LayerNorm(wide), *layers)


def load_vila(
    release: Release,
    conversation: Conversation,
    *,
    image_token: str = "<|reserved_special_token_0|>",  # noqa: S107 - a word of the vocabulary, no secret
    stops: tuple[str, ...] = ("<|eot_id|>",),
) -> SplicedVlm:
    """Load VILA's three folders; names are mapped while they are read, nothing is written and no code runs.

    Args:
        release: A folder with `PARTS`.
        conversation: The image is `<image>` in its template.
        image_token: Word of the vocabulary that no text becomes; features stand on its places.
        stops: Words that end generation beside the end token.

    Raises:
        CheckpointError: One of the folders is missing, its weights are not complete, or VILA 1.5 has no such projector.
    """
    import transformers as hf

    path, dtype = release.folder, release.dtype
    parts = {name: described(path / name / "config.json", f"of {what}") for name, what in PARTS.items()}
    raw = described(path / "config.json", "the model's configuration")
    kind = parts["mm_projector"].get("mm_projector_type")
    if kind != "mlp_downsample" or raw.get("s2"):
        raise CheckpointError(
            f"{path} has the projector {kind!r}{' and images at several scales' if raw.get('s2') else ''}; "
            "this loader reads mlp_downsample at one scale, as VILA 1.5 has it."
        )
    llm = loaded(hf.AutoModelForCausalLM, path / "llm", dtype)
    tower = loaded(hf.SiglipVisionModel, path / "vision_tower", dtype)
    tokenizer = hf.AutoTokenizer.from_pretrained(path / "llm")
    side = -(-(tower.config.image_size // tower.config.patch_size) // 2)
    config = hf.LlavaConfig(
        vision_config=tower.config,
        text_config=llm.config,
        image_token_index=place_of(tokenizer, image_token),
        image_seq_length=side**2,
        vision_feature_layer=raw["mm_vision_select_layer"],
        vision_feature_select_strategy="full",
    )
    with torch.device("meta"):
        model = hf.LlavaForConditionalGeneration(config)
    model.model.language_model, model.lm_head, model.model.vision_tower = llm.model, llm.lm_head, tower
    model.generation_config = llm.generation_config
    connector = projector(tower.config.hidden_size, llm.config.hidden_size).to(dtype)
    file = need(path / "mm_projector" / "model.safetensors", "the projector's weights")
    fill(connector, {name.removeprefix("layers."): value for name, value in load_file(file).items()}, file)
    model.model.multi_modal_projector = connector
    images = hf.AutoImageProcessor.from_pretrained(path / "vision_tower", backend="pil", **image_settings(conversation))
    return SplicedVlm(
        model.eval(),
        images,
        tokenizer,
        conversation,
        family=Family(token=image_token, connector_linear=r"model\.multi_modal_projector\.[24]"),
        image_tokens=config.image_seq_length,
        stops=tuple(stops),
    )
