"""Hydra's view of the grid: the sweeper `vlmbench`, and the launchers `vlmbench_local` and `vlmbench_slurm`.

Hydra imports every plugin at each start of any command: nothing here imports more than Hydra itself. It executes the
file without entering it into sys.modules, where dataclasses look annotations up that are strings: they are not here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
from omegaconf import DictConfig, OmegaConf


class GridSweeper(BasicSweeper):
    """Hydra's product of lists, composed fast, checked as a whole, and handed to the command that was typed.

    The basic sweeper composes each point twice at 80 ms, and stops at the first that cannot be; a filter on it
    (hydra-filter-sweeper) composes once more.

    Callbacks of Hydra (`hydra.callbacks`) are told of the start and end of the multirun. Of single jobs (`on_job_start`
    and the like) those of vlmbench's launchers tell them nothing: cells are processes that are forked ready, and know
    their configuration but not Hydra's. `hydra/launcher=basic` and submitit's own run them.

    Args:
        max_batch_size: Of the basic sweeper; all points are handed over at once.
        params: One product, as of the basic sweeper.
        parts: Several products by name, one grid; a key on the command line replaces that of each.
        search: Budget and space, where each point is to be tuned on validation rather than run as it is.
    """

    def __init__(
        self,
        max_batch_size: int | None = None,
        params: dict[str, str] | None = None,
        parts: dict[str, dict[str, str]] | None = None,
        search: Any = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.parts = parts or {}
        self.tuning: Any = OmegaConf.to_container(search, resolve=True) if OmegaConf.is_config(search) else search

    def sweep(self, arguments: list[str]) -> Any:
        """Compose every point and let the command plan, run or fetch them."""
        from vlmbench.config.faults import ConfigError
        from vlmbench.config.product import compose_all
        from vlmbench.config.sweeping import Sweep, handle

        assert self.config is not None  # noqa: S101 - set by setup
        assert self.hydra_context is not None  # noqa: S101 - set by setup
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        for word in parser.parse_overrides(arguments):
            if word.is_sweep_override() and word.key_or_group in ("sweep", "launcher"):
                raise ConfigError(f"{word.input_line}: one at a time, for it says how all cells are run.")
        jobs: list[list[str]] = []
        for part in self.parts.values() or [{}]:
            words = self._parse_config() + [f"{key}={value}" for key, value in part.items()] + arguments
            for batch in self.split_arguments(parser.parse_overrides(words), None):
                jobs += batch
        return handle(Sweep(list(compose_all(loader, self.config, jobs)), jobs, self.launcher, self.tuning))


class CellLauncher(Launcher):
    """What both launchers of the grid share: they take cells as they are composed, rather than compose them anew."""

    def __init__(self, **options: Any) -> None:
        self.options: dict[str, Any] = {
            k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in options.items()
        }
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what Hydra gives to every launcher."""
        self.config, self.hydra_context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Launch jobs of another sweeper, for example Hydra's basic one."""
        from vlmbench.config.product import compose_all
        from vlmbench.grid.jobs import launch_jobs

        assert self.config is not None  # noqa: S101 - set by setup
        assert self.hydra_context is not None  # noqa: S101 - set by setup
        cells = list(compose_all(self.hydra_context.config_loader, self.config, job_overrides))
        return launch_jobs(self.launch_cells, cells, job_overrides)

    def launch_cells(self, cells: Sequence[Any]) -> Sequence[Any]:
        """Run cells; returns how each ended, in the same order."""
        raise NotImplementedError


class LocalLauncher(CellLauncher):
    """Cells as processes of this machine."""

    def launch_cells(self, cells: Sequence[Any]) -> Sequence[Any]:
        """Run cells, several at a time; see `vlmbench.grid.local`."""
        from vlmbench.grid.estimate import seconds_of
        from vlmbench.grid.local import run_cells

        return run_cells(cells, **self.options, seconds=seconds_of)


@dataclass
class LocalConf:
    """Options of `hydra/launcher=vlmbench_local`.

    Attributes:
        jobs: Cells that run at the same time; one with several devices counts as so many. null: as many as the GPUs
            take, or where there are none one for every four cores, for every core where all models are shipped ones.
        gpus: GPUs to hand out. null counts those of CUDA_VISIBLE_DEVICES, or of the machine.
        cells_per_gpu: Cells of one device that share a GPU.
        wait: Whether to wait for cells that other processes are at work on, and to run those that they leave.
        stop_seconds: How long cells may take to save what they have when the launcher is asked to stop.
    """

    _target_: str = "hydra_plugins.vlmbench_grid.LocalLauncher"
    jobs: int | None = None
    gpus: int | None = None
    cells_per_gpu: int = 1
    wait: bool = True
    stop_seconds: float = 60.0


class SlurmLauncher(CellLauncher):
    """Cells as jobs of SLURM."""

    def launch_cells(self, cells: Sequence[Any]) -> Sequence[Any]:
        """Submit cells as job arrays; see `vlmbench.grid.slurm`."""
        from vlmbench.grid.estimate import seconds_of
        from vlmbench.grid.slurm import launch

        own = {"submitit_folder", "jobs", "cells_per_job", "pack_minutes", "wait"}
        parameters = {key: value for key, value in self.options.items() if key not in own}
        return launch(cells, parameters=parameters, **{key: self.options[key] for key in own}, seconds=seconds_of)


@dataclass
class SlurmConf(SlurmQueueConf):
    """Options of `hydra/launcher=vlmbench_slurm`: those of hydra-submitit-launcher's `submitit_slurm`, and our own.

    How many nodes and tasks a job has follows from trainer.nodes and trainer.devices of its cells.

    Attributes:
        jobs: Cells at a time within a job; null: as many as its GPUs take, or one for every four of its cores.
        cells_per_job: Cells of one job; null: as many as fill `pack_minutes` by their estimates.
        pack_minutes: How long the small cells that share a job take together; longer ones have one each.
        wait: Whether to wait for the end, or to return when all are submitted; the same command waits later.
        max_num_timeout: How often a job that meets its time limit goes on in another; preemption does not count.
    """

    _target_: str = "hydra_plugins.vlmbench_grid.SlurmLauncher"
    submitit_folder: str = "${hydra.sweep.dir}/slurm/%j"
    name: str = "vlmbench"
    max_num_timeout: int = 100
    jobs: int | None = None
    cells_per_job: int | None = None
    pack_minutes: float | None = 10.0
    wait: bool = True


@dataclass
class SearchConf:
    """Options of a search, see `conf/sweep/hpo.yaml`.

    Attributes:
        n_trials: Trials of each study, failed ones included; the same for every model.
        seed: Of what is drawn.
        batch: Trials of a study that run at the same time.
        space: What is searched for, nested like the configuration: `{low, high, log, step}` or `{choices}`.
    """

    n_trials: int = 16
    seed: int = 0
    batch: int = 1
    space: dict[str, Any] = field(default_factory=dict)


@dataclass
class SweeperConf:
    """Options of `hydra/sweeper=vlmbench`: as those of Hydra's basic one, and several products in one grid."""

    _target_: str = "hydra_plugins.vlmbench_grid.GridSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None
    parts: dict[str, dict[str, str]] | None = None
    search: SearchConf | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="vlmbench", node=SweeperConf, provider="vlmbench")
ConfigStore.instance().store(group="hydra/launcher", name="vlmbench_local", node=LocalConf, provider="vlmbench")
ConfigStore.instance().store(group="hydra/launcher", name="vlmbench_slurm", node=SlurmConf, provider="vlmbench")
