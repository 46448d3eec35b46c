"""Checks of the machine that a cell asks for: devices, nodes and how they work together."""

from __future__ import annotations

from importlib.util import find_spec
from shutil import which

from vlmbench.config import schema
from vlmbench.config.faults import ConfigError


def check_trainer(cell: schema.CellConfig) -> None:
    """Check that a cell can be computed on the devices that it asks for.

    Raises:
        ConfigError: It cannot; the message says what to set.
    """
    trainer = cell.trainer
    world = trainer.devices * trainer.nodes
    if getattr(cell.finetune, "optimiser", "") == "paged_adamw" and trainer.accelerator in ("cpu", "mps"):
        raise ConfigError(
            f"finetune.optimiser=paged_adamw pages a GPU's memory, which trainer.accelerator={trainer.accelerator} has "
            "not. Set finetune.optimiser=adamw, which computes the same."
        )
    if trainer.strategy == "deepspeed_stage_3" and find_spec("deepspeed") is None:
        raise ConfigError(
            "trainer.strategy=deepspeed_stage_3 needs the package deepspeed, which is not installed: "
            "pip install 'vlmbench[deepspeed]', or take trainer=fsdp, which needs nothing more."
        )
    _check_kernels(trainer)
    if world == 1:
        return
    asked = f"trainer.devices={trainer.devices} trainer.nodes={trainer.nodes}"
    if trainer.strategy == "auto":
        raise ConfigError(
            f"{asked}: say how they work together. Set trainer=ddp where the model fits on one device; trainer=fsdp or "
            "trainer=deepspeed_zero3 where it does not."
        )
    if trainer.batch_size % world:
        raise ConfigError(
            f"trainer.batch_size={trainer.batch_size} is of all devices together and does not divide by {world} "
            f"({asked}). Set trainer.batch_size={max(1, round(trainer.batch_size / world)) * world}."
        )
    if trainer.accelerator == "mps":
        raise ConfigError(f"{asked}: trainer.accelerator=mps is one device. Set trainer.devices=1.")
    if isinstance(cell.model, schema.HostedModelConfig):
        raise ConfigError(f"{asked}: {cell.model.name} is asked over a network by one process. Leave trainer=... out.")
    if trainer.strategy != "ddp":
        _check_sharded(cell)


def check_evaluation_trainer(trainer: schema.TrainerConfig) -> None:
    """Check the machine of an evaluation that does not train.

    Raises:
        ConfigError: It asks for several devices, or for a kernel that it cannot have.
    """
    _check_kernels(trainer)
    if trainer.devices * trainer.nodes > 1:
        raise ConfigError("a finished cell is evaluated on one device: leave trainer=ddp and the like out.")


def _check_kernels(trainer: schema.TrainerConfig) -> None:
    """Check that the kernels that are asked for are installed and go with device and arithmetic."""
    if trainer.compile and which("g++") is None and which("clang++") is None:
        raise ConfigError("trainer.compile=true needs a C++ compiler: install g++, or leave it out.")
    if trainer.attention != "flash_attention_2":
        return
    if find_spec("flash_attn") is None:
        raise ConfigError(
            "trainer.attention=flash_attention_2 needs the package flash-attn, which is not installed: "
            "pip install flash-attn, or take trainer.attention=sdpa, torch's own, which needs nothing more."
        )
    if trainer.accelerator in ("cpu", "mps"):
        raise ConfigError(
            f"trainer.attention=flash_attention_2 needs CUDA, not trainer.accelerator={trainer.accelerator}. Set "
            "trainer.attention=sdpa."
        )
    if trainer.precision == "32-true":
        raise ConfigError(
            "trainer.attention=flash_attention_2 computes in half precision. Set trainer.precision=bf16-mixed, or "
            "trainer.attention=sdpa."
        )


def _check_sharded(cell: schema.CellConfig) -> None:
    """Check a cell whose model is split over the devices while it trains."""
    strategy, trainer = f"trainer.strategy={cell.trainer.strategy}", cell.trainer
    if cell.model.kind == "contrastive":
        raise ConfigError(
            f"{strategy} splits large generative models; {cell.model.name} fits on each device. Set trainer=ddp."
        )
    if trainer.micro_tokens:
        raise ConfigError(
            f"{strategy} does not go with trainer.micro_tokens: devices that gather layers for each other compute in "
            "step. Lower trainer.batch_size and raise trainer.accumulate_grad_batches instead."
        )
    if isinstance(cell.finetune, schema.QloraConfig):
        raise ConfigError(
            f"{strategy} does not split the 4-bit weights of finetune=qlora. Set trainer=ddp: the language model takes "
            "about a quarter of its memory on each device."
        )
    if trainer.precision == "16-mixed":
        raise ConfigError(f"{strategy} does not go with trainer.precision=16-mixed. Set bf16-mixed or 32-true.")
    if not strategy.endswith("deepspeed_stage_3"):
        return
    if trainer.accelerator == "cpu":
        raise ConfigError(f"{strategy} needs GPUs. Set trainer.accelerator=auto, or trainer=ddp.")
    if trainer.accumulate_grad_batches > 1:  # it would accumulate over the end of an epoch
        raise ConfigError(
            f"{strategy} does not go with trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}. "
            "Set it to 1 and lower trainer.batch_size, or take trainer=fsdp."
        )
