"""Cells as jobs of SLURM: submitted as arrays through submitit, never twice, and waited for without accounting."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmbench.config import schema
from vlmbench.config.faults import ConfigError
from vlmbench.grid.follow import Watch
from vlmbench.grid.order import Seconds
from vlmbench.grid.outcome import Outcome
from vlmbench.grid.queue import SlurmError, check, longest_array
from vlmbench.grid.submitted import Queued, Submitted, key_of, queued
from vlmbench.grid.waiting import Known, holder, look_up, settled

#: Of the time from SLURM's signal to the end: what cells have to save themselves; the rest is for requeuing.
_STOP_SHARE = 2 / 3
# Of these submitit's names have no prefix, since its other executors have them too.
_SHARED = (
    "name",
    "timeout_min",
    "mem_gb",
    "nodes",
    "cpus_per_task",
    "gpus_per_node",
    "tasks_per_node",
    "stderr_to_stdout",
)


def launch(
    configs: Sequence[schema.CellConfig],
    *,
    submitit_folder: str,
    jobs: int | None,
    cells_per_job: int | None,
    pack_minutes: float | None,
    wait: bool,
    parameters: Mapping[str, Any],
    seconds: Seconds | None = None,
) -> list[Outcome]:
    """Submit the cells that are neither done nor at work nor in the queue, and wait for all.

    Args:
        configs: Each possible, see `check_cell`.
        submitit_folder: Of a job's pickles and logs, with `%j` for its number.
        jobs: Cells at a time within a job; None: as its GPUs and cores allow.
        cells_per_job: See `packs_of`.
        pack_minutes: See `packs_of`.
        wait: Whether to return at the end, or when all are submitted.
        parameters: What every job asks for: the fields of hydra-submitit-launcher's SlurmQueueConf.
        seconds: An estimate for each cell, by which small ones share a job.

    Returns:
        How each cell ended, in the order of `configs`; `submitted` where nobody waits.

    Raises:
        ConfigError: A setting that cannot be.
        SlurmError: SLURM is not there, or refuses; nothing of what it refused is submitted.
    """
    for key, where in (("nodes", "trainer.nodes"), ("tasks_per_node", "trainer.devices")):
        if parameters.get(key, 1) != 1:
            raise ConfigError(f"hydra.launcher.{key} follows from the cells: set {where}.")
    for key, value in (("jobs", jobs), ("cells_per_job", cells_per_job)):
        if value is not None and value < 1:
            raise ConfigError(f"hydra.launcher.{key}={value}: must be at least 1, or null.")
    if pack_minutes is not None and not pack_minutes >= 0:
        raise ConfigError(f"hydra.launcher.pack_minutes={pack_minutes}: must be at least 0, or null.")
    check(parameters.get("partition"))
    cells, same = look_up(configs)
    outcomes: dict[int, Outcome] = {}
    todo: Sequence[Known] = cells
    while todo:
        outcomes |= {cell.index: outcome for cell in todo if (outcome := settled(cell)) is not None}
        todo = [cell for cell in todo if cell.index not in outcomes]
        held = [cell for cell in todo if holder(cell)]
        with queued(folder_of(submitit_folder)) as queue:
            known = {key: entry for entry in queue.entries for key in entry.keys}
            waiting: dict[int, Submitted | None] = {cell.index: known.get(key_of(cell)) for cell in todo}
            again = sum(entry is not None for entry in waiting.values())
            fresh = [cell for cell in todo if waiting[cell.index] is None and cell not in held]
            elsewhere = len(todo) - again - len(fresh)
            counts = f"{len(outcomes)} done already, {again} submitted before, {len(fresh)} to submit"
            print(
                f"{len(cells)} cells: {counts}" + (f", {elsewhere} at work elsewhere" if elsewhere else ""), flush=True
            )
            packs = divide(fresh, cells_per_job=cells_per_job, pack_minutes=pack_minutes, jobs=jobs, seconds=seconds)
            for shape, group in packs.items():
                for pack, entry in submit(group, shape, submitit_folder, jobs, parameters, queue):
                    waiting |= {cell.index: entry for cell in pack}
        watch = Watch({cell.index: cell for cell in cells}, waiting, outcomes, total=len(cells))
        try:
            todo = watch.run() if wait else watch.leave()
        except KeyboardInterrupt:
            print(watch.farewell(), file=sys.stderr)
            raise
    repeated = {index: dataclasses.replace(outcomes[first], repeated=True) for index, first in same.items()}
    return [(outcomes | repeated)[index] for index in range(len(configs))]


def folder_of(submitit_folder: str) -> Path:
    """Return the part of submitit's folder that all jobs share."""
    from submitit.core.utils import JobPaths

    return JobPaths.get_first_id_independent_folder(submitit_folder)


Shape = tuple[int, int, bool]


def divide(
    cells: Sequence[Known],
    *,
    cells_per_job: int | None,
    pack_minutes: float | None,
    jobs: int | None,
    seconds: Seconds | None,
) -> dict[Shape, list[list[Known]]]:
    """Divide cells into jobs, by what a job asks for: nodes, devices of each, and whether these must be GPUs."""
    from vlmbench.grid.pack import packs_of

    configs = [cell.config for cell in cells]
    packs = packs_of(configs, cells_per_job=cells_per_job, pack_minutes=pack_minutes, jobs=jobs or 1, seconds=seconds)
    groups: dict[Shape, list[list[Known]]] = {}
    for pack in packs:
        trainer = configs[pack[0]].trainer
        shape = (trainer.nodes, trainer.devices, trainer.accelerator in ("gpu", "cuda"))
        groups.setdefault(shape if shape[:2] != (1, 1) else (1, 1, False), []).append([cells[index] for index in pack])
    return groups


def submit(
    packs: Sequence[Sequence[Known]],
    shape: Shape,
    submitit_folder: str,
    jobs: int | None,
    parameters: Mapping[str, Any],
    queue: Queued,
) -> list[tuple[Sequence[Known], Submitted]]:
    """Submit packs of one shape as job arrays, and add them to `queue`.

    Raises:
        SlurmError: sbatch refuses; what it says is in the message.
    """
    import submitit
    from submitit.core.utils import JobPaths

    from vlmbench.grid.pack import Pack

    asked = {**parameters, **_resources(parameters, shape)}
    executor = submitit.AutoExecutor(submitit_folder, "slurm", slurm_max_num_timeout=asked.pop("max_num_timeout"))
    executor.update_parameters(**{key if key in _SHARED else f"slurm_{key}": value for key, value in asked.items()})
    told = folder_of(submitit_folder).resolve() / "told"
    errors = str(JobPaths(submitit_folder, "%j", 0).stderr)
    stop_seconds = max(1.0, parameters["signal_delay_s"] * _STOP_SHARE)
    size, submitted = longest_array(), list[tuple[Sequence[Known], Submitted]]()
    for first in range(0, len(packs), size):
        group = packs[first : first + size]
        name = f"{parameters['name']}-{uuid.uuid4().hex[:6]}"
        executor.update_parameters(name=name)
        entries = [
            Submitted(name, place, tuple(map(key_of, pack)), str(told / f"{name}-{place}.json"), errors)
            for place, pack in enumerate(group)
        ]
        works = [
            Pack([cell.config for cell in pack], entry.told, jobs, stop_seconds)
            for pack, entry in zip(group, entries, strict=True)
        ]
        queue.add(entries)
        made = _submit(executor, works)
        entries = [dataclasses.replace(entry, job=job.job_id) for entry, job in zip(entries, made, strict=True)]
        queue.add(entries)
        submitted += zip(group, entries, strict=True)
        span = made[0].job_id.partition("_")[0] + (f"_[0-{len(made) - 1}]" if len(made) > 1 else "")
        print(f"submitted {sum(map(len, group))} cells as {len(made)} jobs: {span}, {name}", flush=True)
    return submitted


def _submit(executor: Any, works: Sequence[Any]) -> list[Any]:
    """Hand packs to sbatch; what it says reaches the user once, in an error of ours."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(executor.submit_array(works))
    except (FailedJobError, FailedSubmissionError) as error:
        told = " ".join(str(error).replace("sbatch: error:", "").split())
        raise SlurmError(f"sbatch refuses the job: {told}. See hydra.launcher.* for what it asks for.") from error


def _resources(parameters: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """Return what a job asks for beyond what the user set: one task for each device of a cell."""
    nodes, devices, gpus = shape
    asked: dict[str, Any] = {"nodes": nodes, "tasks_per_node": devices}
    if devices > 1 and (gpus or parameters.get("gpus_per_node")):
        asked["gpus_per_node"] = max(devices, parameters.get("gpus_per_node") or 0)
    if parameters.get("cpus_per_task"):
        # Since SLURM 22.05 a step no longer takes over what its job asked for.
        asked["srun_args"] = [f"--cpus-per-task={parameters['cpus_per_task']}"]
    return asked
