"""How much GPU memory a model needs: an estimate from its sizes alone, for planning, right within a half or so.

What is added up, in bytes:

* **Weights.** Frozen ones are held in bfloat16, 2 each. Weights that train are held in float32 with a gradient and
  AdamW's two moments, 4 + 4 + 8 = 16 each (as counted by Rajbhandari et al., 2020, arXiv 1910.02054, section 3.1, with
  a float32 weight instead of two copies). `full` holds every weight in float32 and autocast keeps a bfloat16 copy of
  each while a step lasts, 2 more. `qlora` holds the language model but for its embeddings in 4.127 bits each
  (`vlmbench.tuning.quantise`), 0.516 bytes; the embeddings are taken for one table of vocabulary x width.
* **Activations kept for the backward pass**, in bytes a token, channel and layer: `ACTIVATION`, measured on this
  program's own steps (blocks of LLaMA and CLIP under bfloat16 autocast, no checkpointing; tests/test_models_command.py
  measures it again). 34 is the published least in 16 bits (Korthikanti et al., 2022, arXiv 2205.05198, equation 2,
  without the attention scores, which fused attention computes anew); norms in float32 add to it, and each adapter a
  float32 copy of its input and a dropout mask. A tower that no gradient passes through keeps none.
* **Width and depth** where only a tower's number of parameters P is known: P = 12 x layers x width^2 (Kaplan et al.,
  2020, arXiv 2001.08361, section 2.1) with width = 100 x layers, between CLIP's 64 and LLaMA's 128.
* **Logits** of a generative model over its vocabulary: 12 bytes a token and word, for the bfloat16 logits, their
  float32 copy and the gradients of both.
* **Keys and values** in generation: two vectors of a layer's width a token in bfloat16; grouped queries take less.
* **1 GiB** for the CUDA context, library workspaces and fragmentation: measured ones lie between 0.5 and 1.5 GiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OVERHEAD = 2**30
FROZEN, TRAINED, FULL_FROZEN, AUTOCAST, FOUR_BITS = 2, 16, 4, 2, 0.516
ACTIVATION = {"lora": 88, "qlora": 88, "full": 56, "connector": 34, "coop": 34}
LOGIT = 12
_ASPECT = 100  # width / layers
_PATCH = 14
#: Text beside the image: question, answer and template; and the image itself in a language model.
_TEXT, _TEXT_CONTRASTIVE, _IMAGE_TOKENS, _VOCABULARY = 128, 77, 1024, 32_000


@dataclass(frozen=True)
class Shape:
    """What decides the activations beside the number of parameters.

    Attributes:
        generative: Whether the model writes text.
        vision_tokens: Tokens of one image in the vision tower.
        image_tokens: Tokens of one image in the language model.
        vocabulary: Words of the language model.
    """

    generative: bool
    vision_tokens: int
    image_tokens: int = 0
    vocabulary: int = 0


def shape_of(kind: str, image_size: int, architecture: Mapping[str, object] | None = None) -> Shape:
    """Return a model's shape from its published configuration, and from cautious defaults where there is none.

    Args:
        kind: `contrastive` or `generative`.
        image_size: Side of the input in pixels; 0 where it depends on the image.
        architecture: The published configuration.
    """
    config = dict(architecture or {})
    nested = config.get("model_cfg")
    config = dict(nested) if isinstance(nested, dict) else config
    vision = config.get("vision_config") or config.get("vision_cfg") or {}
    text = config.get("text_config") or {}
    patch = _number(vision, "patch_size", _PATCH)
    side = image_size or _number(vision, "image_size", 0)
    towers_tokens = (side // patch) ** 2 if side else _IMAGE_TOKENS
    generative = kind == "generative"
    given = config.get("image_seq_length") or config.get("mm_tokens_per_image")
    in_text = given if isinstance(given, int) else min(towers_tokens, _IMAGE_TOKENS)
    vocabulary = _number(text, "vocab_size", _VOCABULARY)
    return Shape(generative, towers_tokens, in_text if generative else 0, vocabulary if generative else 0)


def memory(
    parts: Mapping[str, float],
    shape: Shape,
    finetune: str,
    *,
    trained: Mapping[str, float],
    scope: str = "",
    batch: int = 1,
) -> float:
    """Return the estimated peak in bytes.

    Args:
        parts: Parameters of vision, connector, text and language.
        shape: The model's shape.
        finetune: `zero_shot`, `linear_probe`, `lp_text`, `coop`, `clip_adapter`, `lora`, `qlora`, `full`, `connector`.
        trained: Parameters that train, by part.
        scope: What the method touches, in the letters or words of `finetune.scope`.
        batch: Examples of one step; for `coop` prompts, which are what gradients pass through.
    """
    total, training = sum(parts.values()), sum(trained.values())
    full = finetune == "full"
    weights = total * (FULL_FROZEN + AUTOCAST if full else FROZEN)
    weights += training * (TRAINED - FULL_FROZEN if full else TRAINED)
    if finetune == "qlora":
        weights -= (FROZEN - FOUR_BITS) * _blocks(parts.get("language", 0), shape.vocabulary)
    if finetune in ("zero_shot", "linear_probe", "lp_text", "clip_adapter"):
        kept = _cache(parts, shape)
        return weights + batch * kept + OVERHEAD
    vision, text = _reached(shape, finetune, scope)
    tokens = shape.image_tokens + _TEXT if shape.generative else _TEXT_CONTRASTIVE
    kept = vision * shape.vision_tokens * channels(parts.get("vision", 0))
    kept += text * tokens * channels(parts.get("language", 0) + parts.get("text", 0))
    logits = LOGIT * tokens * shape.vocabulary
    return weights + batch * (ACTIVATION[finetune] * kept + logits) + OVERHEAD


def _blocks(language: float, vocabulary: int) -> float:
    """Return the parameters of a language model but for its embeddings."""
    width = _ASPECT * (language / (12 * _ASPECT**2)) ** (1 / 3)
    return max(0.0, language - vocabulary * width)


def _reached(shape: Shape, finetune: str, scope: str) -> tuple[bool, bool]:
    """Return whether gradients pass through the vision tower and through the text side."""
    if not shape.generative:
        return "vision" in scope, "text" in scope or finetune == "coop"
    # What stands behind the connector passes its gradient on, trained or not.
    return "V" in scope and finetune != "connector", True


def _cache(parts: Mapping[str, float], shape: Shape) -> float:
    if not shape.generative:
        return 0.0
    tokens = shape.image_tokens + 2 * _TEXT
    return 4 * tokens * channels(parts.get("language", 0)) + LOGIT * shape.vocabulary


def channels(parameters: float) -> float:
    """Return layers x width of a tower of so many parameters; see the module's text."""
    return (parameters * _ASPECT / 12) ** (2 / 3) / _ASPECT


def _number(node: object, key: str, default: int) -> int:
    value = node.get(key) if isinstance(node, dict) else None
    return value if isinstance(value, int) and value > 0 else default
