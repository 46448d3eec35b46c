"""What the models of older programs share: pieces of text tokenised apart, image features put between them."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import nn

from vlmbench.backbones.base import Conversation
from vlmbench.backbones.generative.family import Family
from vlmbench.backbones.generative.inputs import ImageInputs
from vlmbench.backbones.generative.native import HfVlm
from vlmbench.weights.processor import check_settings
from vlmbench.weights.release import CheckpointError


class SplicedVlm(HfVlm):
    """A model whose vocabulary has no image token: its own program splices features into the embedded text.

    The features stand on the places of `family.token`, a word of the vocabulary that no text becomes, so that no row is
    added to the embeddings and the loss is the original's.

    Args:
        model: The network.
        images: Its image processor.
        tokenizer: Its tokenizer.
        conversation: How it is talked to.
        family: How the architecture names its parts.
        image_tokens: Features of an image.
        ending: Text that ends an answer, in training and in generation; empty takes the tokenizer's end token.
        stops: Words of the vocabulary that end generation too.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Any,
        tokenizer: Any,
        conversation: Conversation,
        *,
        family: Family,
        image_tokens: int,
        ending: str = "",
        stops: tuple[str, ...] = (),
    ) -> None:
        from transformers import LlavaProcessor

        check_settings(type(images)(), image_settings(conversation))
        processor = LlavaProcessor(images, tokenizer, image_token=family.token)
        super().__init__(model, processor, conversation, family=family)
        self.image_tokens, self.ending = image_tokens, ending
        self.stop_ids = sorted({*self.stop_ids, *self.tokenizer.convert_tokens_to_ids(list(stops))})
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

        Raises:
            ValueError: The text holds the word on whose places the image stands.
        """
        before, after = self.prompt_text(prompt).split(self.family.placeholder)
        first = self.tokenizer(before)["input_ids"]
        rest = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        return self.checked([*first, *[self.image_token_id] * image_tokens, *rest], image_tokens, prompt)

    def answer_ids(self, answer: str) -> list[int]:
        """Return the tokens of an answer and of its end."""
        if not self.ending:
            return super().answer_ids(answer)
        return list(self.tokenizer(self.answer_prefix + answer + self.ending, add_special_tokens=False)["input_ids"])


def place_of(tokenizer: Any, word: str) -> int:
    """Return the number of the word on whose places images stand.

    Raises:
        CheckpointError: The vocabulary has no such word.
    """
    if word not in (vocabulary := tokenizer.get_vocab()):
        raise CheckpointError(
            f"The vocabulary has no {word!r}. Set model.settings.image_token to a word of it that no text becomes."
        )
    return int(vocabulary[word])


def image_settings(conversation: Conversation) -> dict[str, Any]:
    """Return what `model.processor.image_processor` sets.

    Raises:
        CheckpointError: Something else is set; these models have no processor but that of images.
    """
    if foreign := sorted(set(conversation.processor) - {"image_processor"}):
        raise CheckpointError(f"model.processor.{foreign[0]}: this loader takes model.processor.image_processor alone.")
    return dict(conversation.processor.get("image_processor", {}))
