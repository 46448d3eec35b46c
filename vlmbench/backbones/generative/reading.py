"""What a generative model keeps of the rows it has read: continued by more tokens, never read again.

The prompts themselves are read by transformers' own `generate`, which knows each architecture's positions and masks;
what follows an image and its prompt is text, of which every architecture takes a token, a mask and a position.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Reading:
    """Rows of tokens that a model has read, and what it expects next.

    Attributes:
        model: What reads on: the whole network, or the language model of one that only prepares its first inputs.
        cache: Keys and values of transformers, B rows.
        mask: Which places of the rows hold a token (B, T); None where all do.
        last: Position of each row's last token (..., B, 1); None where the model counts them in the mask.
        logits: Of the next token (B, vocabulary).
    """

    model: Any
    cache: Any
    mask: Tensor | None
    last: Tensor | None
    logits: Tensor

    def __len__(self) -> int:
        return len(self.logits)

    def lengths(self) -> list[int]:
        """Return how many tokens each row has."""
        if self.mask is None:
            return [self.cache.get_seq_length()] * len(self)
        return [int(length) for length in self.mask.sum(-1)]

    def rows(self, rows: Sequence[int]) -> Reading:
        """Return these rows in this order, a row once for each time that it is named; this reading stays as it is."""
        index = torch.tensor(rows, device=self.logits.device)
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]  # a layer replaces its tensors, and no values
        cache.batch_select_indices(index)
        return Reading(
            self.model,
            cache,
            None if self.mask is None else self.mask[index],
            None if self.last is None else self.last[..., index, :],
            self.logits[index],
        )

    def read(self, tokens: Tensor, mask: Tensor | None = None, *, behind_each: bool = False) -> Tensor:
        """Read on, and return the logits (B, 1, vocabulary) behind the last token, or behind each (B, K, vocabulary).

        Args:
            tokens: (B, K); what fills up a row on the right changes nothing before it.
            mask: Which of them are tokens, where rows are filled up on the left.
            behind_each: Whether the logits behind all of them are wanted; they are large.
        """
        steps = torch.ones_like(tokens) if mask is None else mask
        if mask is not None and self.mask is None:
            self.mask = steps.new_ones((len(tokens), self.cache.get_seq_length()))
        if self.mask is not None:
            self.mask = torch.cat([self.mask, steps], dim=1)
        inputs: dict[str, Any] = {cache_name(self.model): self.cache, "use_cache": True, "return_dict": True}
        if self.last is not None:
            inputs["position_ids"] = self.last + steps.cumsum(-1)
            self.last = inputs["position_ids"][..., -1:]
        if not behind_each and "logits_to_keep" in takes(self.model.__class__):
            inputs["logits_to_keep"] = 1
        logits: Tensor = self.model(input_ids=tokens, attention_mask=self.mask, **inputs).logits
        self.logits = logits[:, -1]
        return logits


def read(model: Any, inputs: Mapping[str, Tensor], *, pad: int) -> Reading:
    """Return the reading of left-padded prompts.

    Args:
        model: The network, `...ForConditionalGeneration`, or a wrapper of it that has its `generate`.
        inputs: Its inputs, `attention_mask` (B, T) among them.
        pad: What fills up the prompts.
    """
    mask = inputs["attention_mask"]

    def prefill(
        model: Any,
        input_ids: Tensor,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        generation_config: Any = None,
        **model_kwargs: Any,
    ) -> Reading:
        """Stand in for the loop of `generate`: it has prepared everything and reads nothing by itself."""
        ready = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **model_kwargs)
        out = model(**{**ready, "return_dict": True})
        positions = model_kwargs.get("position_ids")
        return Reading(
            model,
            getattr(out, cache_name(model)),
            None if bool(mask.all()) else mask,
            None if positions is None else positions[..., -1:],
            out.logits[:, -1],
        )

    reading: Reading = model.generate(
        **inputs,
        custom_generate=prefill,
        max_new_tokens=1,
        pad_token_id=pad,
        use_cache=True,
        cache_implementation="dynamic",  # one whose rows can be taken and repeated
        # A checkpoint's sampling settings do not apply and would only warn.
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
    )
    return reading


def cache_name(model: Any) -> str:
    """Return what a model calls its keys and values; transformers renamed it in the course of version 5."""
    return "cache" if "cache" in takes(model.__class__) else "past_key_values"


@functools.cache
def takes(kind: Any) -> frozenset[str]:
    """Return the names of the inputs of a class of models."""
    return frozenset(inspect.signature(kind.forward).parameters)
