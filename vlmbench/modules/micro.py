"""A training batch in parts of similar length, the gradients summed: the step of the whole batch in less memory."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmbench.modules import across

log = logging.getLogger(__name__)
STATE = "vlmbench_micro_batches"  # key in a checkpoint
#: Tokens whose work on a CPU is worth the calls that one more part costs; on a GPU the calls alone would cost more.
PART_COST = 256
#: Most numbers of gradients that are set aside: those of adapters, not of whole models.
MOST_HELD = 2**28
#: Least share of a batch's tokens, padding included, that parts must save on a CPU to be worth their calls.
WORTHWHILE = 0.1


def cut(lengths: Sequence[int], limit: int = 0, part_cost: int = PART_COST) -> list[list[int]]:
    """Cut rows into parts such that padding each part to its longest row costs least.

    Args:
        lengths: Tokens of each row.
        limit: Most tokens of a part, padding included; 0 for no limit. A row alone may exceed it.
        part_cost: What a part costs beside its tokens, in tokens.

    Returns:
        The numbers of the rows in each part, the part with the longest rows first: if memory is short, it is short
        there.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    longest = np.array([lengths[row] for row in order], dtype=np.int64)
    # best[i] is the least cost of the i longest rows, in parts of which the last begins at begun[i].
    best, begun = np.zeros(len(order) + 1, dtype=np.int64), [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        tokens = (end - np.arange(end)) * longest[:end]
        allowed = (tokens <= limit) | (np.arange(end) == end - 1) if limit else tokens >= 0
        cost = np.where(allowed, best[:end] + tokens + part_cost, np.iinfo(np.int64).max)
        begun[end] = int(cost.argmin())
        best[end] = cost[begun[end]]
    parts, end = [], len(order)
    while end:
        parts.append(order[begun[end] : end])
        end = begun[end]
    return parts[::-1]


def padded(lengths: Sequence[int], parts: Sequence[Sequence[int]]) -> int:
    """Return the tokens of all parts, padding included."""
    return sum(len(part) * max(lengths[row] for row in part) for part in parts)


@dataclass
class MicroBatches:
    """How the batches of a module are cut, and what that came to.

    Attributes:
        tokens: Most tokens of a part, padding included; 0 cuts where it saves padding on a CPU, and where memory runs
            out.
        enabled: Whether batches may be cut at all. Processes that gather a split model must compute in step.
        checkpointing: `auto` turns activation checkpointing on once memory runs out on a single row.
        limit: Most tokens of a part that memory has shown; 0 for none.
        checkpointed: Whether checkpointing was turned on for want of memory.
        batches: Batches of this process.
        parts: Parts of them.
        computed: Their tokens, padding included.
        uncut: Tokens that the batches would have had whole.
    """

    tokens: int = 0
    enabled: bool = True
    checkpointing: str = "off"
    limit: int = 0
    checkpointed: bool = False
    batches: int = 0
    parts: int = 0
    computed: int = 0
    uncut: int = 0

    def split(self, lengths: Sequence[int], device: str) -> list[list[int]]:
        """Return the parts of a batch, from the lengths of its rows."""
        whole = [list(range(len(lengths)))]
        limit = min(filter(None, (self.tokens, self.limit)), default=0)
        if not self.enabled or len(lengths) == 1:
            return whole
        if limit:
            # As few parts as fit: their calls count for more than any padding.
            return cut(lengths, limit, PART_COST if device == "cpu" else padded(lengths, whole))
        if device != "cpu" or min(lengths) == max(lengths):
            return whole
        parts = cut(lengths)
        return parts if padded(lengths, parts) <= (1 - WORTHWHILE) * padded(lengths, whole) else whole

    def step(self, module: Any, batch: Any) -> Tensor:
        """Compute the gradient of a batch part by part, and log the loss of the whole.

        Args:
            module: A `TunedModule`: gives lengths, parts and losses of its batches, and has a trainer.
            batch: Of the loader, the part of this process.

        Returns:
            What is left to differentiate: the loss of the last part where other processes wait for its gradients, else
            the loss of the batch, of which nothing is left.

        Raises:
            torch.OutOfMemoryError: Memory does not suffice for a single row, another process waits for this one, or
                the gradients of an accumulation are too many to be set aside in case of it.
        """
        lengths = module.lengths(batch)
        # Only a process that is alone can begin again: others would be left waiting within the step.
        alone = across.world() == 1
        held = _gradients(module.trainer) if alone else None
        while True:
            parts = self.split(lengths, module.device.type)
            try:
                loss = self._sum(module, batch, parts)
            except torch.OutOfMemoryError as error:
                if held is None or not self.enabled:
                    error.add_note("Set trainer.micro_tokens, trainer.gradient_checkpointing=on, or both.")
                    raise
                self._shrink(module, lengths, parts, error)
            else:
                break
            # Outside the handler: its error holds the tensors of the step.
            _restore(module.trainer, held)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            torch.manual_seed(torch.initial_seed())  # that of this batch, see `BatchSeed`
        self.batches += 1
        self.parts += len(parts)
        self.computed += padded(lengths, parts)
        self.uncut += len(lengths) * max(lengths)
        return loss

    def facts(self) -> dict[str, Any]:
        """Return what a record says of it, of this process since it began to train."""
        cut_now = max(1, self.batches)
        return {
            "micro_batches": round(self.parts / cut_now, 3),
            "micro_tokens": min(filter(None, (self.tokens, self.limit)), default=None),
            "tokens_saved": round(1 - self.computed / max(1, self.uncut), 4),
        }

    def state(self) -> dict[str, Any]:
        """Return what must be the same after a resume for the steps to be the same."""
        return {"limit": self.limit, "checkpointed": self.checkpointed}

    def _sum(self, module: Any, batch: Any, parts: Sequence[Sequence[int]]) -> Tensor:
        world = across.world()
        own, rows = module.supervised(batch), module.counted_rows(batch)
        everything = own
        if world > 1:
            counts = torch.tensor([own, rows], dtype=torch.float64, device=module.device)
            everything, rows = map(int, across.total(counts).tolist())
        whole = torch.zeros((), device=module.device)
        for number, rows_of_part in enumerate(parts):
            part = batch if len(parts) == 1 else module.part(batch, rows_of_part)
            loss = module.part_loss(part)
            count = module.supervised(part)
            whole += loss.detach() * (count / everything)
            # DDP and FSDP take the mean of the gradients over processes, whatever each of them has of the batch.
            scaled = loss if count * world == everything else loss * (count * world / everything)
            if world == 1 or number + 1 < len(parts):
                _backward(module.trainer, scaled)
        whole = across.total(whole)
        module.log("train/loss", whole, on_step=False, on_epoch=True, batch_size=rows)
        return whole if world == 1 else scaled

    def _shrink(self, module: Any, lengths: Sequence[int], parts: Sequence[Sequence[int]], error: Exception) -> None:
        """Halve the parts, or turn checkpointing on where they are single rows.

        Raises:
            torch.OutOfMemoryError: Neither is left.
        """
        rows = max(parts, key=lambda part: padded(lengths, [part]))
        size = padded(lengths, [rows])
        if max(map(len, parts)) > 1:
            self.limit = max(size // 2, 1)
            log.warning(
                "Memory ran out on %d rows (%d tokens). From here on a batch is computed in parts of %d tokens at "
                "most, with the same gradient; trainer.micro_tokens=%d begins so.",
                *(len(rows), size, self.limit, self.limit),
            )
        elif self.checkpointing == "auto" and not self.checkpointed:
            module.checkpoint_activations()
            self.checkpointed = True
            log.warning(
                "Memory ran out on a single row (%d tokens). From here on activations are computed anew in the "
                "backward pass; trainer.gradient_checkpointing=on begins so.",
                size,
            )
        else:
            error.add_note(
                f"A single row of {size} tokens does not fit. Lower model.max_length or take a larger device."
            )
            raise error


def _parameters(trainer: Any) -> Iterator[Tensor]:
    """Yield what trains; from the optimiser, as walking through all modules takes as long as a small step."""
    for optimiser in trainer.optimizers:
        for group in optimiser.param_groups:
            yield from group["params"]


def _gradients(trainer: Any) -> dict[Tensor, Tensor] | None:
    """Return copies, in the host's memory, of the gradients that earlier batches of an accumulation have left.

    None where they are so many that copying them for each batch would cost more than it may save.
    """
    left = {p: p.grad for p in _parameters(trainer) if p.grad is not None}
    if sum(gradient.numel() for gradient in left.values()) > MOST_HELD:
        return None
    return {parameter: gradient.to("cpu", copy=True) for parameter, gradient in left.items()}


def _restore(trainer: Any, held: Mapping[Tensor, Tensor]) -> None:
    for parameter in _parameters(trainer):
        parameter.grad = held[parameter].to(parameter.device, copy=True) if parameter in held else None


def _backward(trainer: Any, loss: Tensor) -> None:
    """Differentiate as Lightning does with what a training step returns."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    loss = loss / trainer.accumulate_grad_batches
    loss = loss if scaler is None else scaler.scale(loss)
    with torch.autocast(loss.device.type, enabled=False):  # it is made for forward passes
        loss.backward()
