"""A generative model as a language model: a conversation of text without any image."""

from __future__ import annotations

from typing import Any

import torch

from vlmbench.weights.release import CheckpointError


def reply(vlm: Any, prompt: str, max_new_tokens: int) -> str:
    """Return the greedy answer to a prompt that comes without an image.

    Args:
        vlm: A `native.HfVlm`.
        prompt: What the user says.
        max_new_tokens: Longest answer.

    Raises:
        CheckpointError: The checkpoint's chat template has no place for text alone, or writes an image into it.
        ValueError: Prompt and answer exceed the model's `max_length`.
    """
    turn = {"role": "user", "content": [{"type": "text", "text": prompt}]}
    text = str(vlm.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False))
    bos = vlm.tokenizer.bos_token
    ids = vlm.tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))["input_ids"]
    if prompt.strip() not in text or vlm.image_token_id in ids:
        raise CheckpointError(
            "The checkpoint's chat template has no turn of text alone, so that it cannot be asked about text. Serve a "
            "language model (model=hosted_local)."
        )
    if len(ids) + max_new_tokens > vlm.max_length:
        raise ValueError(
            f"A prompt of {len(ids)} tokens and an answer of {max_new_tokens} exceed model.max_length="
            f"{vlm.max_length}: {prompt[:80]!r}. Raise it."
        )
    batch = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    if vlm.family.type_ids:
        batch[vlm.family.type_ids] = torch.zeros_like(batch["input_ids"])
    return str(vlm.generate(batch, max_new_tokens=max_new_tokens)[0])
