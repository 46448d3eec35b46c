"""LoRA (Hu et al., ICLR 2022, arXiv 2106.09685) through PEFT, placed by full module path."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from vlmbench.tuning.attention import unfuse
from vlmbench.tuning.parameters import freeze, hold_in_float32


def add_lora(
    model: nn.Module,
    targets: str,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    train_in_full: Sequence[str] = (),
) -> nn.Module:
    """Wrap `model` so that only low-rank updates, and the modules named in `train_in_full`, train.

    Args:
        model: A pretrained network.
        targets: Regular expression matched against the whole path of each module; a list of plain names such as
            `q_proj` would match every tower that has one.
        rank: Rank of each update.
        alpha: Updates are scaled by alpha / rank.
        dropout: Dropout before the down projection.
        train_in_full: Paths of modules that are copied and trained whole, saved with the adapter.

    Raises:
        ValueError: No module matches, or a module in `train_in_full` does not exist.
    """
    from peft import LoraConfig, get_peft_model

    from vlmbench.tuning.lora_linear import quicken

    _expect_old_name()
    missing = [path for path in train_in_full if path not in dict(model.named_modules())]
    if missing:
        raise ValueError(f"modules to train in full that the model does not have: {missing}")
    settings: dict[str, Any] = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "bias": "none"}

    config = LoraConfig(target_modules=targets, modules_to_save=list(train_in_full) or None, **settings)
    unfuse(model)
    wrapped = get_peft_model(model, config)
    quicken(wrapped)
    return wrapped


def load_lora(model: nn.Module, folder: Path) -> nn.Module:
    """Put a saved adapter back onto the pretrained network it was trained on."""
    from peft import PeftModel
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    from vlmbench.tuning.lora_linear import quicken

    _expect_old_name()
    unfuse(model)
    wrapped = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    hold_in_float32(p for p in wrapped.parameters() if p.requires_grad)
    # Once more: the first time, modules trained in full were rounded to the type of a half-precision network.
    set_peft_model_state_dict(wrapped, load_peft_weights(str(folder), device="cpu"))
    freeze(wrapped)
    quicken(wrapped)
    return wrapped


def targeted(model: nn.Module) -> list[str]:
    """Return the paths of the modules that carry an update, as in the unwrapped network."""
    paths = {name.split(".lora_A.")[0] for name, _ in model.named_parameters() if ".lora_A." in name}
    return sorted(path.removeprefix("base_model.model.") for path in paths)


def _expect_old_name() -> None:
    """Leave out a warning: PEFT asks transformers for an attribute by its old name; nothing here can change that."""
    warnings.filterwarnings("ignore", message=r".*`is_gradient_checkpointing` is deprecated", category=FutureWarning)
