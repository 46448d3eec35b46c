"""Generative models that transformers has a class for: one adapter, told apart by `family.FAMILIES`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vlmbench.backbones.base import Backbone, Conversation, TooLongError, Turn, device_of, joined, named
from vlmbench.backbones.generative.answering import likelihoods, read_prompts, written
from vlmbench.backbones.generative.family import Family, family_of, room_for_gaps
from vlmbench.backbones.generative.inputs import ImageInputs, pad_rows, shared_beginnings
from vlmbench.backbones.generative.loss import IGNORE, answer_loss
from vlmbench.backbones.generative.reading import Reading
from vlmbench.backbones.generative.vision import Tower
from vlmbench.weights.processor import load_processor
from vlmbench.weights.release import CheckpointError, Release, loaded

ITS_OWN = Conversation()
PARTS = {"V": "vision", "M": "connector", "L": "language"}


class HfVlm(nn.Module, Backbone):
    """A vision tower, a connector and a language model in a class of transformers, with its own processor.

    Args:
        model: The network, `...ForConditionalGeneration`.
        processor: Its processor; it expands an image into tokens.
        family: How the architecture names its parts; None looks it up by the configuration.
        conversation: How it is talked to.

    Raises:
        CheckpointError: There is no chat template, or an answer's end is not one token.
    """

    def __init__(
        self, model: nn.Module, processor: Any, conversation: Conversation = ITS_OWN, *, family: Family | None = None
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.chat_template = conversation.chat_template or processor.chat_template or self.tokenizer.chat_template
        if self.chat_template is None:
            raise CheckpointError(
                "The checkpoint has no chat template. Set model.chat_template to the prompt that it was trained with, "
                "a Jinja template in which an image part writes the image token."
            )
        processor.chat_template = self.chat_template
        self.answer_prefix, self.max_length = conversation.answer_prefix, conversation.max_length
        self.config: Any = model.config
        self.family = family or family_of(self.config)
        self.part_prefixes = self.family.prefixes(model)
        self.tower = Tower(self.family.boundary(self.config))
        self.image_token_id = int(self.tokenizer.convert_tokens_to_ids(self.family.token))
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        end = self.family.end or self.tokenizer.eos_token
        ends = self.tokenizer(end, add_special_tokens=False)["input_ids"]
        if len(ends) != 1:
            raise CheckpointError(
                f"The end of an answer, {end!r}, is {len(ends)} tokens in the checkpoint's tokenizer."
            )
        self.end_id = int(ends[0])
        stops = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        stops = stops if isinstance(stops, list) else [stops]
        self.ending = ""  # text that ends an answer, where no token does
        self.stop_ids = sorted({self.end_id, self.tokenizer.eos_token_id, *stops} - {None})

    def preprocess(self, image: Image.Image) -> ImageInputs:
        """Return what the checkpoint's own processor makes of an image.

        The processor is asked for the placeholder's expansion too, and its tokens are counted: how many an image takes
        depends on its size in some models.
        """
        text = "" if self.family.image_first else self.family.placeholder
        out = self.processor(images=[image], text=[text], return_tensors="pt")
        tokens = int((out.pop("input_ids") == self.image_token_id).sum())
        left_out = ("attention_mask", "token_type_ids", "mm_token_type_ids")
        return ImageInputs({key: value for key, value in out.items() if key not in left_out}, tokens)

    def prompt_text(self, prompt: str) -> str:
        """Return a conversation up to where the model answers, with one placeholder where the image goes.

        Raises:
            ValueError: The template or the question leaves other than one place for the image.
        """
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        placeholder = self.family.placeholder
        if text.count(placeholder) != 1:
            raise ValueError(
                f"The prompt holds {text.count(placeholder)} image tokens {placeholder!r} instead of one: {text!r}. "
                "Check model.chat_template and that no question contains the token."
            )
        return str(text)

    def prompt_ids(self, prompt: str, image_tokens: int) -> list[int]:
        """Return the tokens of a conversation up to where the model answers, the image expanded.

        Raises:
            ValueError: As `prompt_text`.
        """
        text = self.prompt_text(prompt)
        expanded = self.family.before + self.family.token * image_tokens + self.family.after
        text = text.replace(self.family.placeholder, "" if self.family.image_first else expanded)
        # A template may already write the begin token; the tokenizer would write a second one.
        bos = self.tokenizer.bos_token
        ids = self.tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))["input_ids"]
        ids = [self.image_token_id] * image_tokens + ids if self.family.image_first else ids
        return self.checked(ids, image_tokens, prompt)

    def checked(self, ids: list[int], image_tokens: int, prompt: str) -> list[int]:
        """Return the tokens of a prompt, if those of the image are all that are the image's.

        Raises:
            ValueError: The question holds the word on whose places the image stands.
        """
        if ids.count(self.image_token_id) != image_tokens:
            raise ValueError(f"The prompt holds {self.family.token!r}, on whose places images stand: {prompt[:80]!r}.")
        return ids

    def answer_ids(self, answer: str) -> list[int]:
        """Return the tokens of an answer and the end token, the one that stops generation."""
        ids = self.tokenizer(self.answer_prefix + answer, add_special_tokens=False)["input_ids"]
        return [*ids, self.end_id]

    def collate(self, turns: Sequence[Turn], *, supervise: bool) -> dict[str, Tensor]:
        """Return `input_ids`, `attention_mask` (B, T), the images' tensors and, if supervised, `labels`.

        Prompt and answer are tokenised apart and joined, so that the prompt is token for token the one that
        generation sees, and the labels are exactly the answer and the end token.

        Where prompts without answers share an image, `input_ids` are their beginnings, one for each image, and
        `rest_ids`, `rest_mask` (B, R) and `rest_of` (B,) are how they go on: see `answering.read_prompts`.

        Raises:
            ValueError: A row exceeds `max_length`; cutting it could cut image tokens or the answer.
        """
        prompts = [self.prompt_ids(turn.prompt, turn.pixels.tokens) for turn in turns]
        answers = [self.answer_ids(turn.answer) if supervise else [] for turn in turns]
        for turn, prompt, answer in zip(turns, prompts, answers, strict=True):
            self._fits(turn, len(prompt) + len(answer))
        if not supervise:
            names, pad = [turn.image for turn in turns], self.tokenizer.pad_token_id
            shared = shared_beginnings(prompts, names, image_token=self.image_token_id, pad=pad)
            if shared is None or shared.places > room_for_gaps(self.config) - self.max_length:
                return self._padded(prompts, turns, left=True)
            return {**self._padded(shared.beginnings, [turns[row] for row in shared.rows], left=True), **shared.rest}
        rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        labels = [[IGNORE] * len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)]
        return {**self._padded(rows, turns, left=False), "labels": pad_rows(labels, IGNORE, left=False)}

    def _padded(self, rows: Sequence[Sequence[int]], turns: Sequence[Turn], *, left: bool) -> dict[str, Tensor]:
        batch = {
            "input_ids": pad_rows(rows, self.tokenizer.pad_token_id, left=left),
            "attention_mask": pad_rows([[1] * len(row) for row in rows], 0, left=left),
            **self.tower.join(turns),
        }
        if self.family.type_ids:
            batch[self.family.type_ids] = (batch["input_ids"] == self.image_token_id).long()
        return batch

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy over the N supervised tokens, and the logits (N, vocabulary) for them."""
        with self._placed(batch) as inputs:
            return answer_loss(self.model, inputs, inputs.pop("labels"))

    @torch.no_grad()
    def generate(self, batch: Mapping[str, Tensor], *, max_new_tokens: int) -> list[str]:
        """Return the greedy answers to left-padded prompts, without special tokens or outer white space.

        The likeliest token is taken as it is: a checkpoint's penalty for repeating would lower exactly the words that
        a question offers as answers.
        """
        return self._continued(self._read(batch), max_new_tokens)

    @torch.no_grad()
    def score(self, turns: Sequence[Turn], options: Sequence[Sequence[str]]) -> Tensor:
        """Return the summed log-likelihood (B, O) of each option and its end token as the answer; -inf pads rows."""
        return self._scored(self._read(self.collate(turns, supervise=False)), turns, options)

    @torch.no_grad()
    def answer(
        self, turns: Sequence[Turn], options: Sequence[Sequence[str]], *, max_new_tokens: int
    ) -> tuple[list[str], Tensor]:
        """Return what `generate` and `score` do, of prompts that are read once for both; a row may have no option."""
        reading = self._read(self.collate(turns, supervise=False))
        scores = self._scored(reading, turns, options)
        return self._continued(reading, max_new_tokens), scores

    def _read(self, batch: Mapping[str, Tensor]) -> Reading:
        with self._placed(batch) as inputs:
            return read_prompts(self.model, inputs, pad=self.tokenizer.pad_token_id)

    def _continued(self, reading: Reading, max_new_tokens: int) -> list[str]:
        texts = written(reading, self.tokenizer, stops=self.stop_ids, ending=self.ending, max_new_tokens=max_new_tokens)
        return [re.sub(self.family.thought, "", text, flags=re.DOTALL).strip() for text in texts]

    def _scored(self, reading: Reading, turns: Sequence[Turn], options: Sequence[Sequence[str]]) -> Tensor:
        ids = [[self.answer_ids(option) for option in row] for row in options]
        for turn, length, row in zip(turns, reading.lengths(), ids, strict=True):
            self._fits(turn, length + max(map(len, row), default=0))
        return likelihoods(reading, ids)

    def _fits(self, turn: Turn, length: int) -> None:
        if length > self.max_length:
            raise TooLongError(
                f"A row of {length} tokens ({turn.pixels.tokens} of them for the image) exceeds "
                f"model.max_length={self.max_length}: {turn.prompt[:80]!r}. Raise it or shorten the question."
            )

    def lora_targets(self, scope: str) -> str:
        """Return the pattern of the Linear layers of the vision tower (V) and the language model (L) in `scope`.

        Vision layers above the one whose features the connector reads get no gradient and are left out.
        """
        linear = self.family.adapted(self.config)
        return joined(linear.get(PARTS[letter], "") for letter in scope)

    def connector_targets(self) -> str:
        """Return the pattern of the connector's Linear layers.

        Raises:
            CheckpointError: It has none.
        """
        if not self.family.connector_linear:
            raise CheckpointError(
                f"finetune.connector=lora: the connector of {self.config.model_type} has no Linear layer that LoRA "
                "could adapt. Set finetune.connector=full."
            )
        return self.family.connector_linear

    def trainable_parameters(self, scope: str) -> list[str]:
        """Return the names of the parameters of `scope` that the loss reaches."""
        names = named(self.model, self.part_prefixes, (PARTS[letter] for letter in scope))
        return [name for name in names if self.family.reaches(name, self.config)]

    def see(self, image: ImageInputs) -> ImageInputs:
        """Return an image with what the vision tower makes of it in place of its pixels.

        It may stand in a turn for the image as long as the tower stays as it is.
        """
        return self.tower.see(self.model, image)

    @contextmanager
    def _placed(self, batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Give the network's inputs on its device; the tower looks at each image of the batch once, if at all."""
        device, dtype = device_of(self.model), self.model.dtype
        placed = {k: v.to(device, dtype) if v.is_floating_point() else v.to(device) for k, v in batch.items()}
        with self.tower.standing_in(self.model, placed) as inputs:
            yield inputs


def load_vlm(release: Release, conversation: Conversation = ITS_OWN) -> HfVlm:
    """Load a checkpoint in transformers' format.

    Raises:
        CheckpointError: Weights of the model are not in the files, or a processor has no such setting.
    """
    from transformers import AutoModelForImageTextToText

    model = loaded(AutoModelForImageTextToText, release.folder, release.dtype)
    return HfVlm(model, load_processor(release.folder, model.config, conversation.processor), conversation)
