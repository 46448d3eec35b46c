"""One model, method and domain on its way through a search: its study, its trials as cells, what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmbench.cell.naming import Namer, label_of
from vlmbench.cell.prepared import prepare
from vlmbench.config import schema
from vlmbench.config.faults import ConfigError
from vlmbench.config.space import Search, with_values
from vlmbench.errors import UserError
from vlmbench.grid.outcome import Outcome
from vlmbench.grid.study import Study, Tried
from vlmbench.records.claim import claim
from vlmbench.records.identity import digest
from vlmbench.records.store import read_record, write_record, write_text

FOLDER = ".search"


class Tuned:
    """A study with the cells that it is for: one model, task, finetune and domain, one cell for each seed.

    Args:
        cells: They differ in the seed alone; the trials have the first.
        search: Budget and space.

    Raises:
        UserError: The data or weights are not here, or the journal cannot be read.
    """

    def __init__(self, cells: Sequence[schema.CellConfig], search: Search) -> None:
        self.cells, self.search = list(cells), search
        first = self.cells[0]
        self.label = _label(first)
        self.name = study_name(first, _identity(first), search)
        self.folder = Path(first.output) / FOLDER
        self.monitor = first.task.monitor
        self.study: Study | None = None

    def open(self) -> Study:
        """Open the journal; the caller holds the claim on it."""
        self.study = Study(self.folder / f"{self.name}.journal", self.search, maximise=self.monitor != "val/loss")
        return self.study

    def claimed(self) -> Any:
        """Hold the study while a block runs; raises ClaimedError where another process does."""
        return claim(self.folder / self.name)

    @property
    def opened(self) -> Study:
        """The study.

        Raises:
            RuntimeError: It is not open.
        """
        if self.study is None:
            raise RuntimeError(f"{self.name} is not open")
        return self.study

    def trial(self, tried: Tried) -> schema.CellConfig:
        """Return a trial as a cell that never sees the test split; it lies apart from the results."""
        cell = with_values(self.cells[0], tried.values)
        return replace(cell, task=replace(cell.task, evaluate_on="val"), output=str(self.folder / "trials"))

    def tell(self, tried: Tried, outcome: Outcome) -> None:
        """Tell the study how a trial's cell ended."""
        if outcome.status == "done":
            selection = read_record(Path(outcome.folder))["selection"]
            self.opened.tell(tried.number, selection["value"], folder=outcome.folder)
        else:
            self.opened.tell(tried.number, None, folder=outcome.folder, reason=outcome.text)

    def finals(self) -> list[schema.CellConfig]:
        """Return the best configuration as full cells, one for each seed; none where every trial failed."""
        best = self.opened.best()
        return [with_values(cell, best.values) for cell in self.cells] if best else []

    def stamp(self, outcome: Outcome) -> None:
        """Write into the record of a full cell which search it comes from; a report pairs by that."""
        best, folder = self.opened.best(), Path(outcome.folder)
        if outcome.status != "done" or best is None:
            return
        described = self.search.described()
        said = {
            "study": self.name,
            "budget": budget(described),
            **described,
            "metric": self.monitor,
            "best": best.value,
            "trial": best.number,
            "values": dict(best.values),
        }
        with claim(folder) as held:
            record = read_record(folder)
            if record.get("search") != said:
                held.check()
                write_record(folder, {**record, "search": said})

    def write(self, outcomes: Sequence[Outcome] = ()) -> None:
        """Write what is known so far to `NAME.json`."""
        first, described = self.cells[0], self.search.described()
        trials, best = self.opened.trials(), self.opened.best()
        found = {
            "study": self.name,
            "cell": {"model": first.model.name, "pair": first.model.pair, "task": first.task.name}
            | {"finetune": first.finetune.name, "domain": first.domain.shown_name()},
            "budget": budget(described),
            **described,
            "metric": self.monitor,
            "direction": "maximise" if self.opened.maximise else "minimise",
            "counts": {status: sum(one.status == status for one in trials) for status in ("done", "failed", "running")},
            "best": None if best is None else {"trial": best.number, "value": best.value, "values": dict(best.values)},
            "trials": [
                {**{key: getattr(one, key) for key in ("number", "status", "value", "reason", "folder")}}
                | {"values": dict(one.values)}
                for one in trials
            ],
            "cells": [{"label": one.label, "status": one.status, "folder": one.folder} for one in outcomes],
        }
        write_text(self.folder / f"{self.name}.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def study_of(config: schema.CellConfig) -> str:
    """Return a text that the cells of one study share: they differ in the seed alone."""
    return repr(replace(config, seed=0))


def study_name(first: schema.CellConfig, identity: str, search: Search) -> str:
    """Return what a study is called.

    A larger budget goes on with the same study; another space, seed or batch draws otherwise and is another one.

    Args:
        first: The cell whose seed the trials have.
        identity: Of that cell.
        search: Budget and space.
    """
    told = {key: value for key, value in search.described().items() if key != "n_trials"}
    return f"{_label(first).replace('~', '+')}-{digest({'cell': identity, **told})[:10]}"


def _label(first: schema.CellConfig) -> str:
    return label_of(first).removesuffix(f"-s{first.seed}")


def budget(described: Mapping[str, Any]) -> str:
    """Return a short name of a budget and space: two searches of the same name treat their models alike."""
    return digest(dict(described))[:10]


def check_partners(tuned: Sequence[Tuned]) -> None:
    """Refuse a search whose other side was tuned here with another budget, space or seed.

    Within one sweep both sides get the same by construction.

    Raises:
        ConfigError: It was.
    """
    names = {one.name for one in tuned}
    models = {one.cells[0].model.name for one in tuned}
    for one in tuned:
        model, domain = one.cells[0].model, one.cells[0].domain.shown_name()
        for path in sorted(one.folder.glob("*.json")):
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                cell, asked, there = found["cell"], found["study"], found["budget"]
                same = (cell["task"], cell["finetune"], cell["domain"])
                ties = cell["model"] != model.name and (cell["model"] == model.pair or cell["pair"] == model.name)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UserError(f"{path} is no result of a search: {error!r}. Move it away.") from error
            here = (one.cells[0].task.name, one.cells[0].finetune.name, domain)
            if not ties or same != here or asked in names or cell["model"] in models:
                continue
            if there != budget(one.search.described()):
                raise ConfigError(
                    f"{cell['model']}, the other side of {model.name}, was tuned on {domain} with n_trials="
                    f"{found['n_trials']}, seed={found['seed']}, batch={found['batch']} and perhaps another space "
                    f"({path}). Both sides of a pair get the same budget: name both in model=..., or take that one's."
                )


def _identity(config: schema.CellConfig) -> str:
    try:
        return Namer().name(config).identity
    except UserError:  # weights that can still be brought, or a fault that is told now
        return prepare(config).identity
