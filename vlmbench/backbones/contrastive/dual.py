"""What dual encoders share: features, temperature, and the table that says which layers belong to which part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from vlmbench.backbones.base import Backbone, TooLongError, device_of, joined, named
from vlmbench.weights.release import Release, loaded


class Encoded(NamedTuple):
    """What the frozen image tower makes of one image, or of several.

    Attributes:
        features: What a probe sees, (F,) or (B, F).
        embeddings: What stands beside text, (D,) or (Q, D), or (B, D) or (B, Q, D).
    """

    features: Tensor
    embeddings: Tensor


@dataclass(frozen=True)
class EncodedRows(Sequence[Encoded]):
    """The frozen image tower's outputs for the rows of a split, in its order.

    Attributes:
        features: (N, F).
        embeddings: (N, D) or (N, Q, D); the same tensor as `features` where a model's two do not differ.
    """

    features: Tensor
    embeddings: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, row: Any) -> Any:
        return Encoded(self.features[row], self.embeddings[row])


class DualEncoder(nn.Module, Backbone):
    """A dual encoder; a family gives `encode_image`, `encode_text` and the tables.

    Attributes:
        part_prefixes: For each part the prefixes of its parameters.
        linear: For each part (vision, text, connector) the pattern of its Linear layers, matched against whole paths.
        unreached: Prefixes of parameters that no loss reaches: heads of other tasks, poolers that are not read.
        token_inputs: What the text tower takes of what the tokenizer gives.
        whole_context: Whether texts are padded to the context, and not to the longest beside them.

    Args:
        model: The network.
        tokenizer: Its tokenizer.
        transform: The checkpoint's own preprocessing, PIL image to float32 (3, H, W).
        feature_dim: Width F of what `features` gives.
        context_length: Most tokens of a text.
    """

    linear: Mapping[str, str]
    unreached: tuple[str, ...] = ()
    token_inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    whole_context = False

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        transform: Callable[[Image.Image], Tensor],
        *,
        feature_dim: int,
        context_length: int,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer
        self.transform = transform
        self.feature_dim = feature_dim
        self.context_length = context_length

    @property
    def logit_scale(self) -> Tensor:
        """The learned inverse temperature, as a factor."""
        return self.model.logit_scale.exp()

    def train(self, mode: bool = True) -> DualEncoder:
        """Set the mode, except that batch norms keep their statistics: buffers are not among what tuning saves."""
        super().train(mode)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return (3, H, W) by the checkpoint's own preprocessing."""
        return self.transform(image)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `token_inputs`, each (C, T), padded on the right; a silently cut prompt would be another prompt.

        Without `whole_context` padding must not change an embedding: towers are causal and pool at the end token, or
        mask it.

        Raises:
            ValueError: A text is longer than the context.
        """
        padding = {"padding": "max_length" if self.whole_context else "longest", "padding_side": "right"}
        tokens = self.tokenizer(list(texts), max_length=self.context_length, **padding)
        self.check_length(texts, max(map(len, tokens["input_ids"])))
        return {key: torch.tensor(tokens[key]) for key in self.token_inputs}

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to embeddings (B, D), not normalised; or (B, Q, D), of which the best of Q counts."""
        raise NotImplementedError

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map token tensors (C, T) to embeddings (C, D), not normalised."""
        raise NotImplementedError

    def features(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to what a probe sees, (B, F); the projected embedding unless a family says otherwise."""
        return self.encode_image(pixels)

    def encode(self, pixels: Tensor) -> Encoded:
        """Map (B, 3, H, W) to both `features` and `encode_image`, one tensor where they are the same.

        Families where they differ say here how to get both from one pass of the tower.
        """
        embeddings = self.encode_image(pixels)
        same = type(self).features is DualEncoder.features
        return Encoded(embeddings if same else self.features(pixels), embeddings)

    def lora_targets(self, scope: str) -> str:
        """Return the pattern of every Linear layer inside the parts of `scope`."""
        return joined(self.linear.get(part, "") for part in parts_of(scope))

    def trainable_parameters(self, scope: str) -> list[str]:
        """Return the names under the parts of `scope` that the loss reaches."""
        names = named(self.model, self.part_prefixes, parts_of(scope))
        return [name for name in names if not name.startswith(self.unreached)]

    def check_length(self, texts: Sequence[str], longest: int) -> None:
        """Refuse texts the longest of which has more tokens than the context.

        Raises:
            TooLongError: Naming the longest text.
        """
        if longest > self.context_length:
            worst = max(texts, key=len)[:80]
            raise TooLongError(
                f"{longest} tokens exceed the text tower's {self.context_length}: {worst!r}. Shorten it."
            )

    def placed(self, tokens: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return `tokens` where the model is."""
        device = device_of(self.model)
        return {key: value.to(device) for key, value in tokens.items()}


class HfDual(DualEncoder):
    """A dual encoder of transformers with its own processor.

    Args:
        model: The network.
        processor: Image processor and tokenizer.
        feature_dim: As in `DualEncoder`; 0 takes the vision tower's width.
        context_length: As in `DualEncoder`; 0 takes the text tower's positions.
    """

    def __init__(self, model: nn.Module, processor: Any, *, feature_dim: int = 0, context_length: int = 0) -> None:
        config: Any = model.config
        super().__init__(
            model,
            processor.tokenizer,
            partial(pixels_of, processor),
            feature_dim=feature_dim or config.vision_config.hidden_size,
            context_length=context_length or config.text_config.max_position_embeddings,
        )
        self.processor = processor

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, H, W) to projected embeddings (B, D)."""
        return self.model.get_image_features(pixel_values=pixels).pooler_output

    def encode_text(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Map tokens (C, T) to projected embeddings (C, D)."""
        return self.model.get_text_features(**self.placed(tokens)).pooler_output


def hf_loader(family: Callable[[Any, Any], HfDual], model_class: str, processor_class: str) -> Callable[..., Any]:
    """Return what loads the checkpoints of a family.

    Args:
        family: Makes the backbone of a network and a processor.
        model_class: Name of the network's class in transformers.
        processor_class: Name of the class that holds the image processor and the tokenizer.
    """

    def load_hf(release: Release) -> HfDual:
        import transformers

        model = loaded(getattr(transformers, model_class), release.folder, release.dtype)
        # Pinned: torchvision and PIL resize to different pixels, and whichever is installed would otherwise decide.
        image_processor = transformers.AutoImageProcessor.from_pretrained(release.folder, backend="pil")
        tokenizer = transformers.AutoTokenizer.from_pretrained(release.folder)
        processor = getattr(transformers, processor_class)(image_processor=image_processor, tokenizer=tokenizer)
        return family(model, processor)

    load_hf.__annotations__["return"] = family  # who asks where LoRA goes reads the tables of this class
    return load_hf


def pixels_of(processor: Any, image: Image.Image) -> Tensor:
    """Return (3, H, W): resized, cropped and normalised by the constants of a processor of transformers."""
    return processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0].float()


def parts_of(scope: str) -> list[str]:
    """Return the parts that a scope trains: its towers and, where both train, what they share and the temperature."""
    towers = scope.split("+")
    return [*towers, "connector", "head"] if {"vision", "text"} <= set(towers) else towers


def cast(pixels: Tensor, model: nn.Module) -> Tensor:
    """Return pixels in the type of the model's weights, where they are."""
    first = next(model.parameters())
    return pixels.to(first.device, first.dtype if first.is_floating_point() else torch.float32)
