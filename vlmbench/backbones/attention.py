"""Which kernel computes the attention of a network of transformers."""

from __future__ import annotations

from torch import nn

from vlmbench.errors import UserError


def set_attention(model: nn.Module, kernel: str) -> None:
    """Choose the kernel for every part of a network that transformers has a class for.

    Args:
        model: The network.
        kernel: `eager`, `sdpa` or `flash_attention_2`.

    Raises:
        UserError: A part does not go with it, or no part is transformers' own.
    """
    from transformers import PreTrainedModel

    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    if not parts:
        raise UserError(
            f"trainer.attention={kernel}: {type(model).__name__} is no network of transformers, and has one kernel of "
            "its own. Set trainer.attention=auto."
        )
    try:
        for part in parts:
            part.set_attn_implementation(kernel)
    except (ImportError, ValueError) as error:
        raise UserError(f"trainer.attention={kernel}: {error} Set trainer.attention=auto.") from error
