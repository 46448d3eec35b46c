"""Runs as a stand-in for W&B's server sees them: one a cell, once, resumed, faults survived, offline files read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic_records import make_record
from synthetic_study import diagnosis_frame, vqa_frame
from wandb_server import serving

from vlmbench.config.schema import LoggerConfig, WandbLoggerConfig
from vlmbench.records.state import CHECKPOINTS
from vlmbench.records.store import write_predictions
from vlmbench.reporting.dashboards import Curves, Dashboard, show
from vlmbench.reporting.uploads import predictions_of, run_id, run_of, summary_of, tags_of

# One process at a time: W&B keeps one background service a process, and the machine has two cores.
pytestmark = pytest.mark.xdist_group("wandb")


@pytest.fixture
def server(monkeypatch):
    import wandb

    wandb.teardown()  # what earlier tests have started knows another address
    with serving() as found:
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        # Its first retries would come after 2 s and 4 s.
        for end in ("MIN", "MAX"):
            monkeypatch.setenv(f"WANDB__FILE_STREAM_RETRY_WAIT_{end}_SECONDS", "1")
        yield found
        wandb.teardown()
        assert found.errors == []


def cell(folder: Path, **changes) -> dict:
    """Write what a finished cell leaves, but its record, which is returned."""
    write_predictions(folder, diagnosis_frame(30, 0.8, noise=0))
    (folder / "saved").mkdir()
    (folder / "saved" / "head.safetensors").write_bytes(b"weights")
    made = make_record(**changes)
    made["config"]["sweep"] = {"name": "demo"}
    return made


def logged(server, name: str) -> list[int]:
    return [line[name] for _, line in sorted(server.runs[next(iter(server.runs))].history.items()) if name in line]


def interrupted(dashboard: Dashboard) -> None:
    """Log five steps, then be stopped by Ctrl-C."""
    with dashboard:
        for step in range(1, 6):
            dashboard.logger.log_metrics({"train/loss": 1 / step}, step)
        raise KeyboardInterrupt


def test_an_interrupted_and_resumed_cell_is_one_run_with_each_step_once(server, tmp_path, capsys):
    record = cell(tmp_path)
    config = WandbLoggerConfig(predictions="scores", artifact=True, tags=["mine"], patience=20)
    server.faults["file_stream"] += [500, 0]  # once an error, once a connection that is dropped
    with pytest.raises(KeyboardInterrupt):
        interrupted(Dashboard(config, record, tmp_path, "cell"))
    (run,) = server.runs.values()
    assert (run.finished, run.summary["status"]) == ([1], "interrupted")
    with Dashboard(config, record, tmp_path, "cell") as dashboard:
        for step in range(3, 9):  # from the checkpoint of step 2
            dashboard.logger.log_metrics({"train/loss": 1 / step}, step)
        dashboard.summarise(record)
    assert list(server.runs) == [run_id(record["identity"])]
    assert logged(server, "trainer/global_step") == list(range(1, 9))
    assert run.finished == [1, 0]
    assert (run.attributes["groupName"], run.attributes["jobType"]) == ("demo", "lora")
    assert {"tiny_clip", "generalist", "phantom_radiograph", "diagnosis", "mine"} <= set(run.attributes["tags"])
    auroc = record["metrics"]["auroc"]
    assert [run.summary[f"test/auroc{end}"] for end in ("", "_low", "_high")] == [
        auroc[key] for key in ("value", "low", "high")
    ]
    assert run.summary["status"] == "done"
    assert run.config["cell"]["value"]["domain"] == "phantom_radiograph"
    assert {(a.type, a.committed) for a in server.artifacts} == {("run_table", True), ("adapter", True)}
    (adapter,) = [a for a in server.artifacts if a.type == "adapter"]
    assert adapter.files == {"head.safetensors": b"weights"}
    # Scored anew it is the same run with other numbers, and nothing that is there is uploaded twice.
    record["metrics"]["auroc"]["low"] = 0.125
    assert show(config, record, tmp_path, "cell")
    assert (len(server.runs), run.summary["test/auroc_low"]) == (1, 0.125)
    assert len(server.artifacts) == 2
    assert logged(server, "trainer/global_step") == list(range(1, 9))
    assert "going on without" not in capsys.readouterr().err


def test_a_server_that_fails_for_good_ends_no_cell_and_what_it_lacks_is_synced_later(server, tmp_path):
    record = cell(tmp_path)
    server.faults["file_stream"] += [500] * 10_000
    with Dashboard(WandbLoggerConfig(patience=1), record, tmp_path, "cell") as dashboard:
        dashboard.logger.log_metrics({"train/loss": 1.0}, 1)
        dashboard.summarise(record)
    (run,) = server.runs.values()
    assert run.history == {}
    server.faults.clear()
    synced(server, tmp_path)
    assert [line["train/loss"] for line in run.history.values()] == [1.0]
    assert run.summary["test/auroc"] == record["metrics"]["auroc"]["value"]
    assert run.finished == [0]


def test_a_server_that_refuses_the_run_is_told_of_once(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    server.faults["UpsertBucket"] += [500] * 10_000
    assert not show(WandbLoggerConfig(), cell(tmp_path), tmp_path, "cell")
    assert capsys.readouterr().err.count("W&B could not start") == 1


def test_offline_cells_and_transfers_are_read_back_by_wandb_itself(server, train, command, tmp_path):
    online = ["logger=wandb", "logger.mode=offline", f"logger.folder={tmp_path / 'w'}", "logger.group=ward"]
    ran = train("finetune=linear_probe", *online, "logger.predictions=text", "logger.artifact=true")
    assert ran.status == 0, ran.err
    (folder,) = ran.cells
    status, _, err = command("evaluate", f"cell={folder}", "domain=phantom_oct", "domain.patients=24", *online)
    assert status == 0, err
    synced(server, tmp_path / "w")
    moved = json.loads(next(folder.glob("transfer/*/record.json")).read_text())
    assert set(server.runs) == {run_id(record["identity"]) for record in (ran.record, moved)}
    own, away = (server.runs[run_id(record["identity"])] for record in (ran.record, moved))
    assert (own.attributes["groupName"], own.attributes["jobType"]) == ("ward", "linear_probe")
    assert away.attributes["jobType"] == "transfer"
    assert "phantom_oct" in away.attributes["tags"]
    for run, record in ((own, ran.record), (away, moved)):
        for name, row in record["metrics"].items():
            assert [run.summary.get(f"test/{name}{end}") for end in ("", "_low", "_high")] == [
                row[key] for key in ("value", "low", "high")
            ]
    kinds = {a.type: a for a in server.artifacts}
    assert set(kinds) == {"run_table", "adapter"}
    assert kinds["adapter"].files["head.safetensors"] == (folder / "saved" / "head.safetensors").read_bytes()
    table = json.loads(kinds["run_table"].files["predictions.table.json"])
    assert [row[1] for row in table["data"]] == ran.predictions["example_id"].tolist()


def test_offline_parts_of_an_interrupted_cell_are_synced_into_one_run(server, tmp_path):
    record = cell(tmp_path)
    config = WandbLoggerConfig(mode="offline")
    with pytest.raises(KeyboardInterrupt):
        interrupted(Dashboard(config, record, tmp_path, "cell"))
    with Dashboard(config, record, tmp_path, "cell") as dashboard:
        for step in range(3, 9):
            dashboard.logger.log_metrics({"train/loss": 1 / step}, step)
        dashboard.summarise(record)
    assert server.runs == {}
    synced(server, tmp_path)
    (run,) = server.runs.values()
    assert logged(server, "trainer/global_step") == list(range(1, 9))
    assert run.summary["status"] == "done"


def synced(server, folder: Path) -> None:
    """Upload what lies under a folder with W&B's own command, which reads its own files."""
    runs = sorted(str(path) for path in (folder / "wandb").glob("*run-*"))
    program = [str(Path(sys.executable).parent / "wandb"), "sync", "--include-online", *runs]
    environment = {**os.environ, **server.environment()}
    ended = subprocess.run(program, env=environment, capture_output=True, text=True, cwd=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_curves_of_a_run_that_goes_on_begin_where_they_ended(tmp_path):
    path = tmp_path / CHECKPOINTS / "curves.json"
    curves = Curves(path, None)
    assert curves.fresh({"train/loss": 1.0}, 5) == {"train/loss": 1.0}
    assert curves.fresh({"val/auroc": 0.5}, 5) == {"val/auroc": 0.5}  # of the same step, later
    again = Curves(path, 9)
    assert again.fresh({"train/loss": 1.0, "lr": 0.1}, 5) == {"lr": 0.1}
    assert Curves(tmp_path / "none.json", 9).fresh({"train/loss": 1.0}, 9) == {}
    assert Curves(tmp_path / "none.json", 9).fresh({"train/loss": 1.0}, 10) == {"train/loss": 1.0}


def test_texts_and_identifiers_leave_only_where_the_user_says_so(tmp_path):
    frame = vqa_frame(50, 0.5, noise=0)
    write_predictions(tmp_path, frame)
    record = make_record(task="vqa")
    scores, text = (predictions_of(tmp_path, record, kind, 10) for kind in ("scores", "text"))
    assert scores.columns == ["row", "answer_type", "accuracy"]
    assert len(scores.data) == 10
    assert text.columns == ["row", "example_id", "question", "answer", "prediction", "answer_type", "accuracy"]
    told = pd.DataFrame(text.data, columns=text.columns)
    assert told["accuracy"].tolist() == (told["answer"] == told["prediction"]).astype(float).tolist()
    assert WandbLoggerConfig().predictions == "none"
    assert WandbLoggerConfig().artifact is False


@pytest.mark.parametrize(
    ("configured", "environment", "mode"),
    [
        ("online", "offline", "offline"),
        ("offline", "online", "offline"),
        ("online", "disabled", "disabled"),
        ("online", "", "online"),
        ("offline", "dryrun", "offline"),
    ],
)
def test_of_two_modes_the_one_holds_that_lets_less_out(configured, environment, mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", environment)
    assert run_of(WandbLoggerConfig(mode=configured), make_record(), "cell")["mode"] == mode


def test_tags_fit_and_a_failed_record_has_a_summary_too():
    record = make_record(failed="no image today")
    record["cell"]["domain"] = "d" * 100
    tags = tags_of(record, ["lora", "x" * 70])
    assert tags.count("lora") == 1
    assert max(map(len, tags)) == 64
    assert summary_of(record)["status"] == "failed"
    assert run_of(WandbLoggerConfig(group="g"), record, "cell")["group"] == "g"
    with Dashboard(LoggerConfig(), record, Path("/nowhere"), "cell") as dashboard:
        assert dashboard.logger is None
