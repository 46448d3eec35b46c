"""What the models of older programs share: pieces of text tokenised apart, image features put between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vlmbench.backbones.generative.family import Family
from vlmbench.backbones.generative.native import HfVlm, ImageInputs
from vlmbench.errors import UserError


class MissingPartError(UserError):
    """A release lacks one of the parts that the model is put together from."""


class SplicedVlm(HfVlm):
    """A model whose vocabulary has no image token: its own program splices features into the embedded text.

    The features stand on the places of `family.token`, a word of the vocabulary that no text becomes, so that no row is
    added to the embeddings and the loss is the original's.

    Args:
        model: The network.
        processor: Image processor and tokenizer.
        family: How the architecture names its parts.
        image_tokens: Features of an image.
        end: What ends an answer, in training and in generation; empty takes the tokenizer's end token.
        stops: Words of the vocabulary that end generation too.
        settings: As `HfVlm`.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        *,
        family: Family,
        image_tokens: int,
        end: str = "",
        stops: tuple[str, ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(model, processor, family=family, **settings)
        self.image_tokens, self.end, self.stops = image_tokens, end, stops
        if self.tokenizer.pad_token_id == self.image_token_id:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # padding must not be taken for an image

    def preprocess(self, image: Image.Image) -> ImageInputs:
        """Return what the image processor makes of an image."""
        pixels = self.processor.image_processor(image, return_tensors="pt")["pixel_values"]
        return ImageInputs({"pixel_values": pixels}, self.image_tokens)

    def prompt_ids(self, prompt: str, image_tokens: int) -> list[int]:
        """Return the tokens up to where the model answers: the text before and after the image are tokenised apart.

        The tokenizer's begin token goes before the first piece, whatever the template wrote there: VILA's prompts have
        two of them, in training as in use.
        """
        before, after = self.prompt_text(prompt).split(self.family.placeholder)
        ids = [*self.tokenizer(before)["input_ids"], *[self.image_token_id] * image_tokens]
        return [*ids, *self.tokenizer(after, add_special_tokens=False)["input_ids"]]

    def answer_ids(self, answer: str) -> list[int]:
        """Return the tokens of an answer and of its end."""
        if not self.end:
            return super().answer_ids(answer)
        return list(self.tokenizer(self.answer_prefix + answer + self.end, add_special_tokens=False)["input_ids"])

    def end_settings(self) -> dict[str, Any]:
        """Return where generation ends."""
        ends = [self.tokenizer.eos_token_id, *self.tokenizer.convert_tokens_to_ids(list(self.stops))]
        return {"eos_token_id": ends} | ({"stop_strings": [self.end], "tokenizer": self.tokenizer} if self.end else {})

    def generate(self, batch: Mapping[str, Tensor], *, max_new_tokens: int) -> list[str]:
        """Return the greedy answers, without the text that ends them."""
        answers = super().generate(batch, max_new_tokens=max_new_tokens)
        return [answer.split(self.end)[0].strip() for answer in answers] if self.end else answers


def need(path: Path, what: str, where: str) -> Path:
    """Return `path` if it is there.

    Args:
        path: A file or a folder of the release.
        what: What it holds.
        where: Where to get it, or which setting names it.

    Raises:
        MissingPartError: It is not there.
    """
    if not path.exists():
        raise MissingPartError(f"{path} is missing: {what}. {where}")
    return path


def companion(companions: Mapping[str, str] | None, name: str, what: str) -> Path:
    """Return the folder or file that the loader knows as `name`.

    Raises:
        MissingPartError: The model's YAML names none, or it is not there.
    """
    path = (companions or {}).get(name)
    if path is None:
        raise MissingPartError(f"This model needs {what}: name its source in model.companions.{name}.source.")
    return need(Path(path), what, f"model.companions.{name}.source says where it comes from.")


def build_empty(model_class: Any, config: Any) -> Any:
    """Return the network without memory for its weights; each part is then put in its place."""
    with torch.device("meta"):
        return model_class(config)
