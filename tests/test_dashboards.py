"""Weights & Biases: one run a cell, offline too, closed when a cell fails, and never a reason to fail."""

import json

from vlmbench.backbones.contrastive.clip import HfClip
from vlmbench.config.schema import LoggerConfig, WandbLoggerConfig
from vlmbench.reporting.dashboards import Dashboard

OFFLINE = ["logger=wandb", "logger.mode=offline"]


def test_an_offline_run_holds_curves_and_results(train, tmp_path):
    ran = train("finetune=lora", *OFFLINE, f"logger.folder={tmp_path / 'w'}")
    assert ran.status == 0, ran.err
    (run,) = (tmp_path / "w" / "wandb").glob("offline-run-*")
    (log,) = run.glob("run-*.wandb")
    raw = log.read_bytes()
    for name in (b"val/auroc", b"train/loss", b"test/auroc_low", ran.record["identity"].encode()):
        assert name in raw, name


def test_a_failing_cell_closes_its_run_as_failed(train, tmp_path, monkeypatch):
    import wandb

    ends = []
    init = wandb.init

    def spied(**settings):
        run = init(**settings)
        finish = run.finish

        def spied_finish(exit_code=None):
            ends.append(exit_code)
            finish(exit_code=exit_code)

        monkeypatch.setattr(run, "finish", spied_finish)
        return run

    def broken(self, image):
        raise RuntimeError("no image today")

    monkeypatch.setattr(wandb, "init", spied)
    with monkeypatch.context() as patch:
        patch.setattr(HfClip, "preprocess", broken)
        assert train("finetune=lora", *OFFLINE, f"logger.folder={tmp_path / 'w'}").status == 1
    assert train("finetune=lora", *OFFLINE, f"logger.folder={tmp_path / 'w'}").status == 0
    assert ends == [1, 0]


def test_a_dashboard_that_is_down_costs_nothing(train, monkeypatch):
    import wandb

    def down(**settings):
        raise wandb.errors.CommError("no network")

    monkeypatch.setattr(wandb, "init", down)
    ran = train("finetune=zero_shot", "logger=wandb")
    assert ran.status == 0
    assert ran.record["status"] == "done"
    assert "could not start (CommError: no network); going on without" in ran.err


def test_a_dashboard_that_breaks_while_uploading_leaves_the_record(tmp_path, capsys):
    class Broken:
        class experiment:
            class summary:
                @staticmethod
                def update(values):
                    raise ConnectionError("gone")

            @staticmethod
            def finish(exit_code):
                raise ConnectionError("gone")

    row = {"value": 1.0, "low": None, "high": None}
    record = {"metrics": {"auroc": row}, "cost": {"seconds": {}}, "identity": "i", "exposure": "id", "role": "r"}
    with Dashboard(LoggerConfig(), {}, tmp_path, "cell") as dashboard:
        dashboard.logger = Broken()
        dashboard.summarise(record)
    assert capsys.readouterr().err.count("ConnectionError: gone") == 2


def test_the_logger_is_not_part_of_the_identity(train, tmp_path):
    plain = train("finetune=zero_shot", output=tmp_path / "a")
    logged = train("finetune=zero_shot", *OFFLINE, f"logger.folder={tmp_path / 'w'}", output=tmp_path / "b")
    assert plain.record["identity"] == logged.record["identity"]
    assert json.dumps(plain.record["metrics"]) == json.dumps(logged.record["metrics"])
    assert WandbLoggerConfig().mode == "online"
