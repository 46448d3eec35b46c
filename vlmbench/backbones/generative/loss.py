"""The loss of supervised fine-tuning, with logits where an answer stands and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

IGNORE = -100  # the label that torch's cross-entropy leaves out


def answer_loss(model: Any, inputs: Mapping[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy over supervised tokens and the logits that predict them.

    A vocabulary has tens of thousands of words and a prompt hundreds of tokens, most of them the image's: logits of all
    places are the largest tensor of a training step, and all but a few of its rows have no label.

    Args:
        model: A class of transformers with an image and a language model, or PEFT's wrapper of one.
        inputs: What it takes, without labels.
        labels: Of each token (B, T), `IGNORE` where there is no answer.

    Returns:
        The loss, and float logits (N, vocabulary) of the N supervised tokens, row by row of the batch.
    """
    # The state at a place predicts the token behind it.
    places = functional.pad(labels[:, 1:] != IGNORE, (0, 1))
    with _head_at(model.get_output_embeddings(), places):
        logits = model(**inputs, use_cache=False).logits  # keys and values are kept for generation alone
    return functional.cross_entropy(logits.float(), labels[:, 1:][places[:, :-1]]), logits


@contextmanager
def _head_at(head: nn.Module, places: Tensor) -> Iterator[None]:
    """Let the last layer of a language model see the states (B, T, D) at some places (B, T) alone, as (N, D)."""

    def at_places(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states, *others = inputs
        return (states[torch.as_tensor(places, device=states.device)], *others)

    hook = head.register_forward_pre_hook(at_places)
    try:
        yield
    finally:
        hook.remove()
