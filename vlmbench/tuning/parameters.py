"""What trains: freezing, counting by part, and the proof that every trainable tensor was reached by the loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class UntrainedError(Exception):
    """A tensor that was meant to train got no usable gradient; the run is worth nothing and stops."""


def freeze(module: nn.Module) -> None:
    """Turn off gradients everywhere in `module`."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def train_only(module: nn.Module, names: Iterable[str]) -> None:
    """Freeze `module` except the parameters called `names`.

    Raises:
        ValueError: A name that the module does not have, or no name at all.
    """
    wanted = set(names)
    known = dict(module.named_parameters())
    if not wanted or wanted - known.keys():
        raise ValueError(f"nothing to train, or unknown parameters: {sorted(wanted - known.keys())[:5]}")
    freeze(module)
    for name in wanted:
        known[name].requires_grad_(True)


def hold_in_float32(parameters: Iterable[Tensor]) -> None:
    """Turn parameters into float32 in place.

    What trains on top of a half-precision backbone is itself kept in full: steps smaller than the spacing of bfloat16,
    2^-8 of a weight, would be lost.
    """
    for parameter in parameters:
        parameter.data = parameter.data.float()


def part_of(name: str, part_prefixes: Mapping[str, tuple[str, ...]]) -> str:
    """Return the part that a parameter belongs to, whatever adapters wrap it.

    Raises:
        KeyError: No part claims the name; the backbone's table is incomplete.
    """
    plain = name.removeprefix("base_model.model.")
    for part, prefixes in part_prefixes.items():
        if plain.startswith(prefixes):
            return part
    raise KeyError(f"parameter {name!r} belongs to no part of {dict(part_prefixes)}")


def count_by_part(
    model: nn.Module, part_prefixes: Mapping[str, tuple[str, ...]], head: nn.Module | None = None
) -> dict[str, dict[str, int]]:
    """Count parameters by part.

    The untouched twins that PEFT keeps of modules trained in full are not counted: they are not part of the model.

    Returns:
        For each part `{"trainable": n, "total": n}`, parts without parameters left out.
    """
    table: dict[str, dict[str, int]] = {}
    rows = [(part_of(n, part_prefixes), p) for n, p in model.named_parameters() if ".original_module." not in n]
    rows += [("head", p) for p in head.parameters()] if head is not None else []
    for part, parameter in rows:
        entry = table.setdefault(part, {"trainable": 0, "total": 0})
        entry["total"] += _size(parameter)
        entry["trainable"] += parameter.numel() if parameter.requires_grad else 0
    return table


def _size(parameter: Tensor) -> int:
    """Return how many weights a parameter holds; in 4 bits a byte holds two."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def format_table(table: Mapping[str, Mapping[str, int]]) -> str:
    """Return the counts as a few aligned lines of text."""
    lines = [f"{'part':<10} {'trainable':>14} {'total':>14} {'share':>8}"]
    rows = [*table.items()]
    rows.append(("all", {key: sum(row[key] for row in table.values()) for key in ("trainable", "total")}))
    for part, row in rows:
        share = row["trainable"] / row["total"] if row["total"] else 0.0
        lines.append(f"{part:<10} {row['trainable']:>14,} {row['total']:>14,} {share:>8.2%}")
    return "\n".join(lines)


def without_gradient(named_parameters: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """Return the trainable tensors whose gradient is missing, not finite or all zero, with which of these it is."""
    faults: dict[str, str] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        gradient = _gradient(parameter)
        if gradient is None:
            faults[name] = "missing"
        elif not torch.isfinite(gradient).all():
            faults[name] = "not finite"
        elif not gradient.any():
            faults[name] = "zero"
    return faults


def _gradient(parameter: Tensor) -> Tensor | None:
    """Return the gradient of a tensor; of a model that is split every process looks at the whole of it."""
    if hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_full_grad

        return safe_get_full_grad(parameter)
    gradient = parameter.grad
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
