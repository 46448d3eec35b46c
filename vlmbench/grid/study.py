"""One Optuna study in a file: what it draws depends on its seed and what it was told alone, so it survives a kill."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from vlmbench.config.space import Dimension, Search
from vlmbench.errors import UserError
from vlmbench.records.identity import digest

REASON, FOLDER = "reason", "folder"


@dataclass(frozen=True)
class Tried:
    """A trial.

    Attributes:
        number: From 0.
        values: Dotted key to value.
        status: `running` until it is told, then `done` or `failed`.
        value: What validation gave; None unless done.
        reason: Why it failed.
        folder: Its cell's directory.
    """

    number: int
    values: Mapping[str, Any]
    status: str
    value: float | None
    reason: str = ""
    folder: str = ""


class _Held(JournalFileOpenLock):
    """No lock: who opens a study holds its directory. Optuna's own lock files outlive a killed process by 30 s."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class Study:
    """A study of one model, method and domain; one process at a time has it open.

    Each trial is drawn by a sampler of its own, seeded with the number of the trial, from the trials before it, and is
    written as a whole before it runs. Whoever opens the file after a kill finds it running, runs it again, and draws
    what would have been drawn.

    Args:
        path: The journal; made where it is missing.
        search: Budget and space.
        maximise: Whether larger values are better.

    Raises:
        UserError: The journal cannot be read.
    """

    def __init__(self, path: Path, search: Search, *, maximise: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search, self.maximise = search, maximise
        self.space = {one.key: _distribution(one) for one in search.space}
        self._direction = "maximize" if maximise else "minimize"
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend(path)
        try:
            storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_Held(str(path))))
            self._study = optuna.create_study(
                storage=storage, study_name="search", direction=self._direction, load_if_exists=True
            )
        except (ValueError, KeyError, OSError) as error:
            raise UserError(
                f"{path} cannot be read: {error}. Delete it: trials that are done are found by their content."
            ) from error

    def trials(self) -> list[Tried]:
        """Return all trials in their order."""
        return [_tried(trial) for trial in self._study.get_trials(deepcopy=False)]

    def pending(self) -> list[Tried]:
        """Return the trials to run now: the current batch, drawn where it is not yet; none where the budget is spent.

        A batch is drawn at once and only when the one before has been told whole, so that a kill changes nothing.
        """
        told = sum(trial.status != "running" for trial in self.trials())
        end = min(self.search.n_trials, (told // self.search.batch + 1) * self.search.batch)
        while len(self._study.get_trials(deepcopy=False)) < end:
            self._draw()
        return [trial for trial in self.trials() if trial.status == "running"]

    def _draw(self) -> None:
        known = self._study.get_trials(deepcopy=False)
        seed = int(digest([self.search.seed, len(known)])[:8], 16)
        # Of trials that run at the same time the later ones keep away from the earlier.
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        drawing = optuna.create_study(sampler=sampler, direction=self._direction)
        drawing.add_trials(known)
        params = drawing.ask(self.space).params
        self._study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=self.space))

    def tell(self, number: int, value: float | None, *, folder: str = "", reason: str = "") -> None:
        """Write how a trial ended; a value that is no number is a failure, and counts as a trial all the same."""
        trial = Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)
        trial.set_user_attr(FOLDER, folder)
        if value is None or not math.isfinite(value):
            trial.set_user_attr(REASON, reason or f"the value is {value}")
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, value)

    def best(self) -> Tried | None:
        """Return the best trial, the first of equals; None where every one failed."""
        done = [trial for trial in self.trials() if trial.value is not None]
        sign = -1 if self.maximise else 1
        return min(done, key=lambda trial: (sign * float(trial.value or 0.0), trial.number), default=None)


def _mend(path: Path) -> None:
    """Cut off a last line that a killed process did not finish: the next would be appended to it."""
    if not path.exists():
        return
    whole = path.read_bytes()
    if whole and not whole.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(whole.rfind(b"\n") + 1)


def _distribution(one: Dimension) -> BaseDistribution:
    if one.kind == "choice":
        return CategoricalDistribution(one.choices)
    if one.kind == "int":
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)


def _tried(trial: FrozenTrial) -> Tried:
    status = {TrialState.RUNNING: "running", TrialState.COMPLETE: "done"}.get(trial.state, "failed")
    told = trial.user_attrs
    value = trial.value if status == "done" else None
    return Tried(trial.number, trial.params, status, value, told.get(REASON, ""), told.get(FOLDER, ""))
