"""The trainer of a cell on its devices."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment

from vlmbench.cell.ranks import Rank, RankError, this_rank
from vlmbench.cell.sharded import Sharded
from vlmbench.config import schema
from vlmbench.errors import UserError
from vlmbench.modules.base import TunedModule

# Advice that does not apply: small sets need no workers, and a resumed cell finds its own checkpoints.
LIGHTNING_CHATTER = (
    r".*does not have many workers",
    r".*exists and is not empty",
    r".*your dataloader is not resumable",  # it is: see vlmbench.domains.epochs
    r".*overridden `transfer_batch_to_device`",
    r".*number of training batches .* is smaller than the logging interval",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated",
    # What is logged is that of the whole batch or split already, the same in each process.
    r".*It is recommended to use `self.log\(.*sync_dist=True",
    r".*FSDP2-wrapped module .* returned a view tensor",  # nothing changes it in place
    r".*The `srun` command is available on your system but is not used",
)


class StartedRanks(LightningEnvironment):
    """Processes started for the cell by us or torchrun, or one that is alone; SLURM around them says nothing."""

    @property
    def creates_processes_externally(self) -> bool:
        """Tell Lightning to start none: its way is to run the command line again, which in a multirun is the grid."""
        return True

    def teardown(self) -> None:
        """Leave WORLD_SIZE, which Lightning would remove, for the next trainer of the cell."""


def make_trainer(
    config: schema.TrainerConfig,
    folder: Path,
    callbacks: Sequence[L.Callback],
    logger: Any,
    *,
    deterministic: bool,
    trains: bool = False,
) -> L.Trainer:
    """Return a trainer on the devices of the cell that prints nothing of its own.

    Args:
        config: The budget and the machine.
        folder: The cell's directory.
        callbacks: Of the trainer.
        logger: Lightning's, None for none.
        deterministic: Whether torch is asked for deterministic algorithms.
        trains: Whether it is for training. Everything else is done by whole models, one a device.

    Raises:
        UserError: This machine has no such accelerator, or not the precision on it.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for chatter in LIGHTNING_CHATTER:
        warnings.filterwarnings("ignore", message=chatter)
    rank = this_rank(config.devices, config.nodes)
    if rank is None:
        raise RankError(f"trainer.devices={config.devices}: the processes of the cell were not started.")
    try:
        trainer = L.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            strategy=strategy_of(config, trains=trains),
            plugins=[environment_of(rank)],
            use_distributed_sampler=False,  # it would repeat rows; see vlmbench.domains.shares
            precision=config.precision,  # type: ignore[arg-type]
            max_epochs=config.max_epochs,
            max_steps=config.max_steps,
            accumulate_grad_batches=config.accumulate_grad_batches,
            gradient_clip_val=config.gradient_clip_val or None,
            # Where a GPU has no deterministic kernel this warns and goes on; True would fail the cell for it.
            deterministic="warn" if deterministic else False,
            callbacks=list(callbacks),
            logger=logger or False,
            default_root_dir=folder,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        )
        # Its handler of SIGTERM broadcasts, in the midst of whatever the ranks are sending; the cell has its own.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    except MisconfigurationException as error:
        raise UserError(
            f"trainer.accelerator={config.accelerator} cannot be had here: {error} Set trainer.accelerator=auto."
        ) from error
    if str(trainer.precision) != config.precision:  # Lightning takes another for it, with a warning at most
        raise UserError(
            f"trainer.precision={config.precision} is not to be had on {trainer.strategy.root_device}. "
            "Set trainer.precision=bf16-mixed or 32-true."
        )
    return trainer


def environment_of(rank: Rank) -> ClusterEnvironment:
    """Return who started the processes of the cell; Lightning would guess, and SLURM around a cell misleads it."""
    return SLURMEnvironment(auto_requeue=False) if rank.slurm else StartedRanks()


def strategy_of(config: schema.TrainerConfig, *, trains: bool) -> Any:
    """Return Lightning's strategy.

    Args:
        config: The machine.
        trains: As in `make_trainer`.
    """
    world = config.devices * config.nodes
    if world == 1:
        return "auto"
    if not trains or config.strategy == "ddp":
        return "ddp"
    if config.strategy == "fsdp":
        return Sharded(world)
    from vlmbench.cell.zero import Zero

    return Zero()


def to_train(module: TunedModule, config: schema.TrainerConfig) -> TunedModule:
    """Return the module to train: the one given, or where it is split over devices a copy of it.

    What was split is not put together again: what it has learnt is loaded into the module that has stayed whole, in the
    host's memory meanwhile.
    """
    if config.devices * config.nodes == 1 or config.strategy == "ddp":
        return module
    return copy.deepcopy(module.cpu())
