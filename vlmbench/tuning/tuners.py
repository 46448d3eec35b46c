"""What trains in a backbone, what is saved of it, and how it is put back: one class a method, one interface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from vlmbench.tuning.lora import add_lora, load_lora
from vlmbench.tuning.parameters import freeze, hold_in_float32, train_only
from vlmbench.tuning.quantise import quantise

ADAPTER, TUNED = "adapter", "tuned.safetensors"


class Tuner(Protocol):
    """A method of adaptation."""

    def apply(self, backbone: Any) -> None:
        """Freeze the backbone except for what the method trains; adapters are added in place."""
        ...

    def save(self, backbone: Any, folder: Path) -> None:
        """Write what was trained, and nothing else, into `folder`."""
        ...

    def load(self, backbone: Any, folder: Path) -> None:
        """Put back what `save` wrote onto a freshly loaded backbone."""
        ...


class Frozen:
    """Zero-shot and linear probe: the backbone stays as it came."""

    def apply(self, backbone: Any) -> None:
        """Freeze everything."""
        freeze(backbone.model)

    def save(self, backbone: Any, folder: Path) -> None:
        """Write nothing: there is nothing of the backbone to keep."""

    def load(self, backbone: Any, folder: Path) -> None:
        """Freeze everything."""
        freeze(backbone.model)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters in `scope`; see `vlmbench.tuning.lora`."""

    scope: str
    rank: int
    alpha: float
    dropout: float
    connector: str = "full"

    def apply(self, backbone: Any) -> None:
        """Wrap the backbone's network.

        Scope M is the connector: trained in full, as LLaVA's recipe does beside LoRA in the language model, or by LoRA.
        """
        targets = [backbone.lora_targets(self.scope)]
        in_full: list[str] = []
        if "M" in self.scope and self.connector == "full":
            # PEFT copies modules: a parameter that stands alone (a prefix without a dot) stays as it came.
            in_full = [prefix[:-1] for prefix in backbone.part_prefixes["connector"] if prefix.endswith(".")]
        elif "M" in self.scope:
            targets.append(f"({backbone.connector_targets()})")
        pattern = "|".join(target for target in targets if target)
        if not pattern:  # only the connector, in full: there is no place for an adapter
            Full(self.scope).apply(backbone)
            return
        backbone.model = add_lora(
            backbone.model, pattern, rank=self.rank, alpha=self.alpha, dropout=self.dropout, train_in_full=in_full
        )
        hold_in_float32(p for p in backbone.model.parameters() if p.requires_grad)

    def save(self, backbone: Any, folder: Path) -> None:
        """Write PEFT's `adapter_config.json` and `adapter_model.safetensors`, or the connector's tensors."""
        if hasattr(backbone.model, "peft_config"):
            backbone.model.save_pretrained(str(folder / ADAPTER), safe_serialization=True)
        else:
            save_trainable(backbone.model, folder)

    def load(self, backbone: Any, folder: Path) -> None:
        """Put the adapter, or the connector's tensors, back."""
        if (folder / ADAPTER).is_dir():
            backbone.model = load_lora(backbone.model, folder / ADAPTER)
        else:
            load_trainable(backbone.model, folder)


@dataclass(frozen=True)
class Qlora:
    """LoRA on a language model that is held in 4 bits; see `vlmbench.tuning.quantise`.

    What is saved is the adapter; the 4 bits are made anew of the pretrained weights, which gives the same.

    Attributes:
        lora: The adapters, and what trains in full beside them.
        device: What computes the 4 bits; None where the weights are.
    """

    lora: Lora
    device: torch.device | None = None

    def apply(self, backbone: Any) -> None:
        """Quantise the language model and wrap the network."""
        quantise(backbone.model, backbone.lora_targets("L"), self.device)
        self.lora.apply(backbone)

    def save(self, backbone: Any, folder: Path) -> None:
        """Write the adapter as PEFT does."""
        self.lora.save(backbone, folder)

    def load(self, backbone: Any, folder: Path) -> None:
        """Quantise a freshly loaded language model and put the adapter back."""
        quantise(backbone.model, backbone.lora_targets("L"), self.device)
        self.lora.load(backbone, folder)


@dataclass(frozen=True)
class Full:
    """Every weight of `scope` that the loss reaches; scope M alone is the method `connector`."""

    scope: str

    def apply(self, backbone: Any) -> None:
        """Unfreeze the scope."""
        train_only(backbone.model, backbone.trainable_parameters(self.scope))
        hold_in_float32(p for p in backbone.model.parameters() if p.requires_grad)

    def save(self, backbone: Any, folder: Path) -> None:
        """Write the trained tensors."""
        save_trainable(backbone.model, folder)

    def load(self, backbone: Any, folder: Path) -> None:
        """Put the trained tensors back."""
        load_trainable(backbone.model, folder)


def save_trainable(model: Any, folder: Path) -> None:
    """Write every trainable tensor of `model` to `tuned.safetensors` under its own name."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    save_file(tensors, folder / TUNED)


def load_trainable(model: Any, folder: Path) -> None:
    """Put back what `save_trainable` wrote.

    Raises:
        ValueError: The file holds tensors that the model does not have: it was trained on another model.
    """
    freeze(model)
    tensors = load_file(folder / TUNED)
    hold_in_float32(p for name, p in model.named_parameters() if name in tensors)
    foreign = model.load_state_dict(tensors, strict=False).unexpected_keys
    if foreign:
        raise ValueError(f"{folder / TUNED} holds tensors that the model does not have: {foreign[:3]}")
