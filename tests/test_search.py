"""Searches: a budget equal on both sides, no look at the test split, and a study that survives a kill."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vlmbench.cell.domain import build_domain
from vlmbench.cell.naming import Namer
from vlmbench.config import entry, schema
from vlmbench.config.faults import ConfigError
from vlmbench.config.restore import cell_from_dict
from vlmbench.config.space import Dimension, Search, read_search, with_values
from vlmbench.config.sweeping import Sweep
from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.grid.outcome import Outcome
from vlmbench.grid.search import run_search
from vlmbench.grid.study import Study, Tried
from vlmbench.records.identity import identity
from vlmbench.records.store import read_record, write_record
from vlmbench.reporting.load import load_rows

SPACE = (
    Dimension("finetune.lr", "float", 1e-5, 1e-1, log=True),
    Dimension("finetune.rank", "int", 2, 32, step=2),
    Dimension("finetune.schedule", "choice", choices=("cosine", "constant")),
)


def quality(values: Any) -> float:
    return -abs(math.log10(values["finetune.lr"]) + 3) - abs(values["finetune.rank"] - 12) / 40


# ------------------------------------------------------------------------------------------------------- one study


def finish(path: Path, search: Search, *, reopen: bool = False, torn: bool = False) -> list[Tried]:
    """Run a study to its end; with `reopen` each trial is told by a process of its own, so to speak."""
    study = Study(path, search, maximise=True)
    while pending := study.pending():
        for tried in pending:
            if reopen:
                if torn:
                    with path.open("ab") as journal:
                        journal.write(b'{"op_code":6,"worker_id":"x","tri')
                study = Study(path, search, maximise=True)
                assert study.pending()[0].number == tried.number
            study.tell(tried.number, quality(tried.values) if tried.number != 3 else math.nan)
    return study.trials()


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("torn", [False, True])
def test_a_study_that_is_killed_again_and_again_tries_what_an_undisturbed_one_tries(tmp_path, batch, torn):
    search = Search(14, 0, batch, SPACE)
    undisturbed = finish(tmp_path / "a.journal", search)
    assert len(undisturbed) == 14
    assert [one.status for one in undisturbed].count("failed") == 1
    assert "nan" in undisturbed[3].reason
    assert finish(tmp_path / "b.journal", search, reopen=True, torn=torn) == undisturbed
    assert len({one.values["finetune.lr"] for one in undisturbed}) == 14


def test_other_seeds_draw_otherwise_and_a_larger_budget_goes_on(tmp_path):
    small = finish(tmp_path / "a.journal", Search(4, 0, 1, SPACE))
    assert finish(tmp_path / "b.journal", Search(4, 1, 1, SPACE))[0].values != small[0].values
    large = finish(tmp_path / "a.journal", Search(7, 0, 1, SPACE))
    assert large[:4] == small
    assert len(large) == 7
    assert finish(tmp_path / "a.journal", Search(5, 0, 1, SPACE)) == large


@pytest.mark.parametrize(("maximise", "number"), [(True, 1), (False, 0)])
def test_the_best_is_the_first_of_equals_and_never_a_failed_one(tmp_path, maximise, number):
    study = Study(tmp_path / "x.journal", Search(5, 0, 1, SPACE), maximise=maximise)
    assert study.best() is None
    for value in (0.2, 0.9, 0.2, math.inf, 0.9):
        (tried,) = study.pending()
        study.tell(tried.number, value)
    best = study.best()
    assert best is not None
    assert best.number == number
    assert study.pending() == []


# --------------------------------------------------------------------------------------------------- what is asked


def cell(**finetune: Any) -> schema.CellConfig:
    return schema.CellConfig(
        model=schema.ContrastiveModelConfig(name="tiny_clip", source="package:tiny_clip", role="generalist"),
        task=schema.DiagnosisTaskConfig(resamples=100),
        finetune=schema.LoraConfig(lr=1e-3, scope="vision", **finetune),
        domain=schema.PhantomDomainConfig(name="p", modality="oct", modalities=["oct"], patients=20),
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_trials": 0}, "n_trials=0 must be a whole number of at least 1"),
        ({"batch": 0}, "batch=0"),
        ({"space": {}}, "space is empty"),
        ({"space": {"finetune": {"lr": None}}}, "space is empty"),
        ({"space": {"finetune": {"lrr": {"low": 1e-4, "high": 1e-3}}}}, "Did you mean 'lr'?"),
        ({"space": {"finetune": {"lr": {"low": 1e-2, "high": 1e-3}}}}, "low must be below high"),
        ({"space": {"finetune": {"lr": {"low": 1e-3, "high": 1e-3}}}}, "low must be below high"),
        ({"space": {"finetune": {"lr": {"low": 0.0, "high": 1e-3, "log": True}}}}, "low must be above 0"),
        ({"space": {"finetune": {"lr": {"low": 0.1, "high": 3.0}}}}, "finetune.lr=3.0 is out of range"),
        ({"space": {"finetune": {"lr": 3}}}, "must say low and high, or choices"),
        ({"space": {"finetune": {"lr": {"low": 1e-4}}}}, "no range"),
        ({"space": {"finetune": {"lr": {"low": 1e-4, "hihg": 1e-3}}}}, "Did you mean 'high'?"),
        ({"space": {"finetune": {"rank": {"low": 1.5, "high": 4}}}}, "takes whole numbers"),
        ({"space": {"finetune": {"rank": {"choices": [4, 0]}}}}, "finetune.rank=0 is out of range"),
        ({"space": {"finetune": {"rank": {"choices": 4}}}}, "a list of at least two"),
        ({"space": {"finetune": {"schedule": {"low": 1, "high": 4}}}}, "is not numeric: give choices"),
        ({"space": {"finetune": {"name": {"choices": ["lora", "full"]}}}}, "'name'"),
        ({"space": {"domain": {"fraction": {"low": 0.1, "high": 1.0}}}}, "Valid choices: finetune, trainer"),
    ],
)
def test_a_space_or_budget_that_cannot_be_is_told(options, said):
    asked = {"n_trials": 4, "seed": 0, "batch": 1, "space": {"finetune": {"lr": {"low": 1e-4, "high": 1e-2}}}}
    with pytest.raises(ConfigError) as caught:
        read_search({**asked, **options}, [cell()])
    assert said in str(caught.value)


def test_values_of_one_setting_have_one_identity_whether_typed_whole_or_real():
    def name(config: schema.CellConfig) -> str:
        return identity(dataclasses.asdict(config), data="d", weights="w")

    assert name(with_values(cell(), {"finetune.alpha": 8})) == name(cell(alpha=8.0))
    assert with_values(cell(), {"trainer.max_epochs": 3}).trainer.max_epochs == 3


def test_a_trial_is_another_cell_and_cells_without_the_switch_keep_their_names():
    config = dataclasses.asdict(cell())
    trial = {**config, "task": {**config["task"], "evaluate_on": "val"}}
    before = {**config, "task": {key: value for key, value in config["task"].items() if key != "evaluate_on"}}
    assert identity(config, data="d", weights="w") == identity(before, data="d", weights="w")
    assert identity(config, data="d", weights="w") != identity(trial, data="d", weights="w")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["finetune=zero_shot"], "finetune=zero_shot has nothing to search for"),
        (["finetune=full"], "hydra.sweeper.search.space.finetune.rank=null"),
        (["hydra.sweeper.search.n_trials=0"], "n_trials=0"),
        (["hydra.sweeper.search.space.finetune.lr.low=1"], "low must be below high"),
        (["+hydra.sweeper.search.space.trainer.num_workers={low:0,high:4}"], "changes no result"),
        (["hydra/launcher=basic"], "launcher=local"),
    ],
)
def test_misuse_is_told_before_torch_is_imported(arguments, said, tmp_path):
    script = (
        "import sys\n"
        "from vlmbench.config.entry import run\n"
        "from vlmbench.train import main\n"
        f"sys.argv = ['train', '-m', 'sweep=hpo', 'output={tmp_path}', *{arguments!r}]\n"
        "try:\n    run(main)\nexcept SystemExit as stop:\n    print(stop.code)\n"
        "print('HEAVY', sorted({'torch', 'lightning', 'transformers'} & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said in ran.stderr
    assert ran.stdout.split() == ["2", "HEAVY", "[]"]


# ----------------------------------------------------------------------------------- a sweep, the cells pretended


class Pretended:
    """A launcher that writes records without running anything."""

    def __init__(self, behave: Callable[[schema.CellConfig], str] = lambda cell: "done") -> None:
        self.behave, self.launched = behave, list[list[schema.CellConfig]]()

    def launch_cells(self, cells: Any) -> list[Outcome]:
        self.launched.append(list(cells))
        return [self._run(one) for one in cells]

    def _run(self, config: schema.CellConfig) -> Outcome:
        status, folder = self.behave(config), Namer().name(config).folder
        if status == "done":
            assert isinstance(config.finetune, schema.LoraConfig)
            value = quality({"finetune.lr": config.finetune.lr, "finetune.rank": config.finetune.rank})
            write_record(folder, {"status": "done", "kind": "cell", "selection": {"value": value}})
        return Outcome("cell", status, status, str(folder))

    @property
    def trials(self) -> list[schema.CellConfig]:
        return [one for cells in self.launched for one in cells if one.task.evaluate_on == "val"]

    @property
    def finals(self) -> list[schema.CellConfig]:
        return [one for cells in self.launched for one in cells if one.task.evaluate_on == "test"]


@pytest.fixture
def searched(monkeypatch, tmp_path):
    """Run `sweep=hpo` with a pretended launcher; returns the exit status."""

    def run(launcher: Pretended, *arguments: str) -> int:
        taken: list[Sweep] = []
        words = ["-m", "sweep=hpo", "domain.patients=20", f"output={tmp_path}", "hydra.sweeper.search.n_trials=5"]
        monkeypatch.setattr(sys, "argv", ["vlmbench train", *words, *arguments])
        entry.compose("train", "", sweep=taken.append)
        return run_search(dataclasses.replace(taken[0], launcher=launcher))

    return run


def results(output: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted((output / ".search").glob("*.json"))]
    return {one["cell"]["model"]: one for one in found}


def test_both_sides_get_the_same_budget_and_the_best_of_each_runs_for_every_seed(searched, tmp_path, capsys):
    launcher = Pretended()
    assert searched(launcher, "seed=0,1") == 0
    by_model: dict[str, list[Any]] = {}
    for one in launcher.trials:
        assert one.seed == 0
        by_model.setdefault(one.model.name, []).append((repr(one.finetune), one.trainer.max_epochs))
    assert len(by_model["tiny_clip"]) == len(by_model["tiny_medclip"]) == 5
    # The same quality on both sides, and so the same draws.
    assert by_model["tiny_clip"] == by_model["tiny_medclip"]
    assert sorted((one.model.name, one.seed) for one in launcher.finals) == [
        (model, seed) for model in ("tiny_clip", "tiny_medclip") for seed in (0, 1)
    ]
    found = results(tmp_path)
    for model, told in found.items():
        assert told["counts"] == {"done": 5, "failed": 0, "running": 0}
        best = max(told["trials"], key=lambda trial: trial["value"])
        assert told["best"]["values"] == best["values"]
        final = next(config for config in launcher.finals if config.model.name == model)
        assert {key: getattr(getattr(final, key.split(".")[0]), key.split(".")[1]) for key in best["values"]} == best[
            "values"
        ]
        stamped = read_record(Path(told["cells"][0]["folder"]))["search"]
        assert (stamped["study"], stamped["n_trials"], stamped["best"]) == (told["study"], 5, best["value"])
        assert stamped["values"] == best["values"]
    assert found["tiny_clip"]["budget"] == found["tiny_medclip"]["budget"]
    out = capsys.readouterr().out
    assert "10 of 10 trials, about 0 s left" in out
    assert "4 of 4 cells done." in out


def test_a_plan_counts_the_trials_that_are_left_and_then_the_cells_of_the_best(searched, command, tmp_path):
    words = ["sweep=hpo", "domain.patients=20", f"output={tmp_path}"]

    def told(name: str, budget: int) -> dict[str, Any]:
        status, out, err = command("grid.__main__", name, *words, f"hydra.sweeper.search.n_trials={budget}", "--json")
        assert status == 0, err
        return json.loads(out)

    before = told("plan", 5)
    assert before["search"] == {"studies": 2, "n_trials": 5, "trials": 10, "ended": 0, "left": 10}
    assert (before["to_do"], before["estimate"]["counted"]) == (6, 16)
    assert [row["counted"] for row in before["tables"]["model"]] == [8, 8]
    launcher = Pretended()
    assert searched(launcher) == 0
    after = told("status", 5)
    assert after["search"]["left"] == 0
    assert after["states"]["not started"] == 0
    expected = {str(Namer().name(config).folder) for config in launcher.finals}
    assert {row["folder"] for row in after["cells"]} == expected
    more = told("plan", 7)  # the best may become another one
    assert (more["search"]["left"], more["to_do"], more["estimate"]["counted"]) == (4, 6, 10)
    status, out, _ = command("grid.__main__", "plan", *words)
    assert status == 0
    assert "2 studies of 16 trials each, 10 of 32 trials ended" in out
    assert "to do 22 trials and 6 cells: " in out


def test_failed_trials_count_and_a_study_of_nothing_else_has_no_cells(searched, tmp_path):
    def behave(config: schema.CellConfig) -> str:
        return "failed" if config.model.name == "tiny_medclip" else "done"

    launcher = Pretended(behave)
    assert searched(launcher) == 1
    found = results(tmp_path)
    assert found["tiny_medclip"]["counts"] == {"done": 0, "failed": 5, "running": 0}
    assert found["tiny_medclip"]["best"] is None
    assert found["tiny_medclip"]["trials"][0]["reason"] == "failed"
    assert found["tiny_clip"]["counts"]["done"] == 5
    assert {one.model.name for one in launcher.finals} == {"tiny_clip"}


def test_a_killed_trial_is_tried_once_more_and_then_counts_as_failed(searched, tmp_path):
    launcher = Pretended(lambda config: "killed" if config.model.name == "tiny_clip" else "done")
    assert searched(launcher) == 1
    names = [one.model.name for one in launcher.trials]
    assert (names.count("tiny_clip"), names.count("tiny_medclip")) == (10, 5)
    assert results(tmp_path)["tiny_clip"]["counts"]["failed"] == 5


def test_a_search_that_is_asked_to_stop_goes_on_where_it_was(searched, tmp_path):
    whole = Pretended()
    assert searched(whole, "hydra.sweeper.search.batch=2", f"output={tmp_path / 'whole'}") == 0
    calls: list[int] = []

    def behave(config: schema.CellConfig) -> str:
        calls.append(1)
        return "interrupted" if len(calls) == 6 else "done"

    first = Pretended(behave)
    assert searched(first, "hydra.sweeper.search.batch=2") == 75
    assert first.finals == []
    second = Pretended()
    assert searched(second, "hydra.sweeper.search.batch=2") == 0
    for model in ("tiny_clip", "tiny_medclip"):
        here, there = results(tmp_path)[model], results(tmp_path / "whole")[model]
        assert len(here["trials"]) == 5
        assert [one["values"] for one in here["trials"]] == [one["values"] for one in there["trials"]]
    third = Pretended()
    assert searched(third, "hydra.sweeper.search.batch=2") == 0
    assert third.trials == []


def test_the_other_side_of_a_pair_cannot_get_another_budget(searched):
    assert searched(Pretended(), "model=tiny_clip") == 0
    with pytest.raises(ConfigError) as caught:
        searched(Pretended(), "model=tiny_medclip", "hydra.sweeper.search.n_trials=6")
    assert "tiny_clip, the other side of tiny_medclip, was tuned on phantom_radiograph with n_trials=5" in str(
        caught.value
    )
    assert searched(Pretended(), "model=tiny_medclip", "domain=phantom_oct", "hydra.sweeper.search.n_trials=6") == 0
    assert searched(Pretended(), "model=tiny_medclip") == 0
    assert searched(Pretended(), "model=tiny_clip,tiny_medclip", "hydra.sweeper.search.n_trials=6") == 0


# ------------------------------------------------------------------------------------------------------- for real


@pytest.mark.parametrize("arguments", [["finetune=lora"], ["model=tiny_llava", "finetune=lora", "finetune.scope=M"]])
def test_a_trial_never_asks_for_the_test_split(train, monkeypatch, arguments):
    asked: set[str] = set()

    def spied(method: Callable[..., Any]) -> Callable[..., Any]:
        def spy(self: DomainDataModule, split: str, *more: Any) -> Any:
            asked.add(split)
            return method(self, split, *more)

        return spy

    for name in ("rows", "ordered"):
        monkeypatch.setattr(DomainDataModule, name, spied(getattr(DomainDataModule, name)))
    ran = train(*arguments, "task.evaluate_on=val", "trainer.max_epochs=1")
    assert ran.status == 0, ran.err
    assert ran.record["kind"] == "trial"
    assert asked == {"train", "val"}
    assert len(ran.predictions) == ran.record["data"]["splits"]["val"]["examples"]
    asked.clear()
    assert train(*arguments, "trainer.max_epochs=1", output=ran.output).status == 0
    assert "test" in asked


REAL = [
    *("-m", "sweep=hpo", "domain.patients=40", "trainer.batch_size=8", "task.resamples=100", "seed=0"),
    *("hydra.sweeper.search.n_trials=3", "hydra.sweeper.search.space.finetune.rank=null"),
    *(
        "hydra.sweeper.search.space.finetune.alpha=null",
        "++hydra.sweeper.search.space.trainer.max_epochs={low:null,high:null,step:null,choices:[1,2]}",
    ),
    "hydra.launcher.jobs=2",
]


def start(output: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "vlmbench.train", *REAL, f"output={output}"]
    return subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL)


def test_a_search_for_real_survives_a_kill_and_leaves_the_test_split_alone(command, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    status, out, err = command("train", *REAL, f"output={undisturbed}")
    assert status == 0, err
    assert "2 of 2 cells done." in out

    process = start(killed)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if len(list((killed / ".search" / "trials").rglob("record.json"))) >= 3:
            break
        time.sleep(0.1)
    assert process.poll() is None, "the search was over before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert start(killed).wait(timeout=600) == 0

    expected, found = results(undisturbed), results(killed)
    for model in ("tiny_clip", "tiny_medclip"):
        assert len(found[model]["trials"]) == 3
        assert found[model]["counts"] == {"done": 3, "failed": 0, "running": 0}
        assert found[model]["best"] == expected[model]["best"]
        assert found[model]["budget"] == expected[model]["budget"]

    trials = sorted((killed / ".search" / "trials").rglob("record.json"))
    assert 3 <= len(trials) <= 6  # two trials of a study may have drawn the same
    for path in trials:
        record = read_record(path.parent)
        assert record["kind"] == "trial"
        config = cell_from_dict(record["config"])
        domain = build_domain(config.domain, "diagnosis")
        ids = set(pd.read_parquet(path.parent / "predictions.parquet")["example_id"])
        assert ids == {example.id for example in domain.split("val")}
        assert not ids & {example.id for example in domain.split("test")}
        assert not (path.parent / "saved").exists()

    rows, unreadable = load_rows(killed)
    assert unreadable == []
    assert sorted((row.model, row.kind) for row in rows) == [("tiny_clip", "cell"), ("tiny_medclip", "cell")]
    assert all(row.record["search"]["n_trials"] == 3 for row in rows)

    status, _, err = command("evaluate", f"cell={trials[0].parent}", "domain=phantom_oct")
    assert status == 2
    assert "is a trial that is done" in err
    status, out, err = command("report", f"records={killed}", f"output={tmp_path / 'report'}")
    assert status == 0, err
