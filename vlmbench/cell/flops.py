"""Floating-point operations of a cell, counted on a few of its examples after everything else is done.

Counted are matrix products, attention and convolutions, a multiplication with its addition as two (torch's
`FlopCounterMode`); what is computed anew to save memory, optimisers, solvers on encoded features, and products with
4-bit weights while a single token is written are not. The count is of the method, not of what a cache saved this cell:
images that are encoded once count once, whoever encoded them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch

from vlmbench.config import schema
from vlmbench.config.checks import encoded_splits
from vlmbench.domains.base import Split
from vlmbench.domains.datamodule import DomainDataModule, Row
from vlmbench.hosted.model import HostedVlm
from vlmbench.modules import across
from vlmbench.modules.base import TunedModule
from vlmbench.modules.contrastive import ContrastiveModule
from vlmbench.modules.generative import GenerativeModule

SAMPLE = 2  # questions whose lengths and answers stand for all: an operation takes long to count
NOTHING: Mapping[str, int | None] = dict.fromkeys(
    ("predict_per_example", "train_per_example", "encode_per_image", "total")
)


def flops(
    config: schema.CellConfig,
    module: TunedModule,
    data: DomainDataModule,
    trainer: L.Trainer,
    trained: Mapping[str, Any],
    prompts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Count the operations of a finished cell; changes neither the stream of random numbers nor any weight.

    Args:
        config: The cell.
        module: As it predicted.
        data: Its loaders.
        trainer: Has the device and the precision.
        trained: `epochs` and `optimiser_steps` of a training; empty where nothing was trained by gradient steps.
        prompts: What the record says of those that were tried; each counts as the chosen one does.

    Returns:
        `predict_per_example` from its pixels on; `train_per_example` of one step, forward and backward, as it was
        computed; `encode_per_image` where images are encoded once; `total` of encoding, trying prompts, training,
        validating and predicting; and `reason` why they are None, else "".
    """
    if isinstance(module.backbone, HostedVlm):
        return {**NOTHING, "reason": "what a hosted model computes nobody tells"}
    if across.world() > 1:
        return {**NOTHING, "reason": "not counted where several processes share a cell"}
    if config.trainer.attention == "flash_attention_2":
        return {**NOTHING, "reason": "not counted: torch does not see into the kernels of flash_attention_2"}
    try:
        with _untouched(module, trainer):
            return {**_counted(config, module, data, trainer, trained, prompts), "reason": ""}
    except Exception as error:  # noqa: BLE001 - a count that fails must not cost a finished cell its record
        reason = f"could not be counted: {type(error).__name__}: {error}".splitlines()[0][:300]
        print(f"{config.model.name}: floating-point operations {reason}", file=sys.stderr, flush=True)
        return {**NOTHING, "reason": reason}


def _counted(
    config: schema.CellConfig,
    module: TunedModule,
    data: DomainDataModule,
    trainer: L.Trainer,
    trained: Mapping[str, Any],
    prompts: Mapping[str, Any] | None,
) -> dict[str, int | None]:
    split: Split = "test"
    count, device = _Counter(trainer), trainer.strategy.root_device
    batch_size, eval_batch_size = config.trainer.batch_size, config.trainer.eval_batch_size

    def predict(rows: list[Row]) -> None:
        with torch.no_grad():
            module.predict_step(_placed(module.collate_eval(rows), device), 0)

    def forward(rows: list[Row]) -> torch.Tensor:
        return module.part_loss(_placed(module.collate(rows), device))

    def train(rows: list[Row]) -> None:
        forward(rows).backward()

    def each(work: Callable[[list[Row]], Any], rows: Sequence[Row], batch: int) -> float:
        return _per_row(
            lambda some: count(lambda: work(some)), rows, batch, linear=isinstance(module, ContrastiveModule)
        )

    pixels = data.from_pixels(split, SAMPLE)
    whole = each(predict, pixels, eval_batch_size)
    computed = whole
    encode: float | None = None
    if split in data.encoded and isinstance(module, GenerativeModule):
        encode = count(lambda: _without_gradients(module.backbone.see, pixels[0][2]))
        computed = whole - encode
    elif split in data.encoded:
        computed = each(predict, _some(data.rows(split)), eval_batch_size)
        encode = whole - computed
    elif encoded_splits(config):  # of the training split, for the statistics of a head
        encode = whole
    tried = sum(not one["reason"] for one in prompts["candidates"]) * prompts["examples"] if prompts else 0
    parts = [computed * (len(data.domain.split(split)) + tried)]
    if encode is not None:
        once = [*data.encoded] or list(encoded_splits(config))
        images = {example.image for name in once for example in data.domain.split(name)}
        parts.append(encode * len(images))
    step = None
    if trained.get("epochs"):
        rows, checked = _some(data.rows("train")), _some(data.rows("val"))
        step = each(train, rows, batch_size)
        taken = trained["optimiser_steps"] * batch_size * config.trainer.accumulate_grad_batches
        parts.append(step * min(len(data.domain.split("train")) * trained["epochs"], taken))
        validate = each(lambda some: _without_gradients(forward, some), checked, eval_batch_size)
        if isinstance(module, GenerativeModule) and (module.mode == "diagnosis" or module.validate_answers):
            validate += each(predict, checked, eval_batch_size)
        parts.append(validate * len(data.domain.split("val")) * trained["epochs"])
    return {
        "predict_per_example": round(whole),
        "train_per_example": None if step is None else round(step),
        "encode_per_image": None if encode is None else round(encode),
        "total": round(sum(parts)),
    }


class _Counter:
    """Counts the operations of a function under the precision of a trainer."""

    def __init__(self, trainer: L.Trainer) -> None:
        self.context = trainer.precision_plugin.forward_context

    def __call__(self, work: Callable[[], Any]) -> int:
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        counter = FlopCounterMode(display=False)
        # As plain products: before torch 2.15 the counter does not know the fused attention of CPUs.
        with counter, sdpa_kernel(SDPBackend.MATH), self.context():
            work()
        return int(counter.get_total_flops())


def _per_row(count: Callable[[list[Row]], int], rows: Sequence[Row], batch: int, *, linear: bool) -> float:
    """Return the operations for one row.

    Images are of one size, so that two counts tell what a row adds from what a batch takes anyway, such as prompts.
    Questions differ in length: the mean over some, each by itself, so without padding.
    """
    if not linear:
        return sum(count([row]) for row in rows) / len(rows)
    one = count(list(rows[:1]))
    if len(rows) < 2:
        return float(one)
    more = count(list(rows[:2])) - one
    return more + (one - more) / batch


def _some(rows: Any) -> list[Row]:
    return [rows[index] for index in range(0, len(rows), max(1, len(rows) // SAMPLE))][:SAMPLE]


def _without_gradients(work: Callable[[Any], Any], given: Any) -> None:
    with torch.no_grad():
        work(given)


def _placed(batch: Any, device: torch.device) -> Any:
    """Return a batch of tensors on the device; other batches are placed by their backbone."""
    if not isinstance(batch, dict) or "rows" in batch:
        return batch
    return {name: value.to(device) for name, value in batch.items()}


@contextmanager
def _untouched(module: TunedModule, trainer: L.Trainer) -> Iterator[None]:
    """Leave modes, gradients and random numbers as they are; nothing is dropped, and no fused kernel escapes the count.

    torch's MultiheadAttention has a kernel for inference that the counter does not know.
    """
    device = trainer.strategy.root_device
    modes = {name: part.training for name, part in module.named_modules()}
    devices = [device] if device.type == "cuda" else []
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    module.to(device).eval()
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        module.zero_grad(set_to_none=True)
        for name, part in module.named_modules():
            part.training = modes[name]
