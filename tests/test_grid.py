"""Many cells: each a process, failures kept apart, the impossible left out, the done skipped."""

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vlmbench.cell.told import summary
from vlmbench.config import schema
from vlmbench.grid.local import run_cells
from vlmbench.weights.source import ASSETS

SMALL = ["domain.patients=20", "trainer.max_epochs=2", "trainer.batch_size=8", "task.resamples=100"]


def statuses(output: Path) -> dict[str, str]:
    return {
        path.parent.name.rsplit("-", 1)[0]: json.loads(path.read_text())["status"]
        for path in output.rglob("record.json")
    }


def test_a_sweep_leaves_out_what_is_impossible_and_skips_what_is_done(command, tmp_path):
    arguments = ["-m", "model=tiny_clip,tiny_llava", "finetune=zero_shot,linear_probe", *SMALL, f"output={tmp_path}"]
    status, out, err = command("train", *arguments)
    assert status == 0, err
    assert "left out: model=tiny_llava finetune=linear_probe" in err
    assert "3 of 3 cells done." in out
    assert "s left" in out
    assert len(statuses(tmp_path)) == 3
    status, out, _ = command("train", *arguments)
    assert status == 0
    assert out.count("done before") == 3


def test_a_failing_cell_never_takes_the_grid_with_it(command, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((ASSETS / "tiny_clip" / "config.json").read_text())
    save_file({"logit_scale": torch.zeros(3)}, broken / "model.safetensors")  # whole, but of no CLIP
    output = tmp_path / "runs"
    sources = f"model.source={broken},package:tiny_clip"
    status, out, _ = command(
        "train", "-m", sources, "finetune=zero_shot", "domain.world_seed=1,2", *SMALL, f"output={output}"
    )
    assert status == 1
    assert "2 of 4 cells done, 2 not:" in out
    assert out.count("FAILED") == 4  # once when it happens, once in the summary
    found = [json.loads(path.read_text()) for path in output.rglob("record.json")]
    assert sorted(record["status"] for record in found) == ["done", "done", "failed", "failed"]
    assert all("Traceback" in record["error"]["traceback"] for record in found if record["status"] == "failed")


def cell(output: Path, **trainer: Any) -> schema.CellConfig:
    return schema.CellConfig(
        model=schema.ContrastiveModelConfig(name="tiny_clip", source="package:tiny_clip", role="generalist"),
        task=schema.DiagnosisTaskConfig(resamples=100),
        finetune=schema.LoraConfig(lr=1e-3, scope="vision"),
        domain=schema.PhantomDomainConfig(name="p", modality="oct", modalities=["oct"], patients=20),
        trainer=schema.TrainerConfig(batch_size=4, **trainer),
        output=str(output),
    )


def test_a_killed_cell_is_told_apart_and_resumes(tmp_path, capfd):
    config = cell(tmp_path, max_epochs=200, patience=200)

    def kill() -> None:
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline:
            if list(tmp_path.glob("*/*/checkpoints/*.ckpt")):
                lock = json.loads(next(tmp_path.glob("*/*/cell.lock")).read_text())
                os.kill(lock["pid"], signal.SIGKILL)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    assert [outcome.status for outcome in run_cells([config])] == ["killed"]
    killer.join()
    (record,) = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert summary(record) in capfd.readouterr().out
    assert record["status"] == "failed"
    assert "SIGKILL" in record["error"]["message"]
    assert list(tmp_path.glob("*/*/checkpoints/*.ckpt"))


@pytest.mark.parametrize("jobs", [2])
def test_two_cells_at_a_time_give_what_one_after_the_other_gives(tmp_path, jobs):
    configs = [cell(tmp_path / name, max_epochs=2) for name in ("one", "two")]
    assert {outcome.status for outcome in run_cells(configs, jobs=jobs)} == {"done"}
    first, second = (path.read_bytes() for path in sorted(tmp_path.rglob("predictions.parquet")))
    assert first == second


def test_the_demo_grid_is_the_twenty_cells_it_says(command, monkeypatch):
    from vlmbench.grid import local
    from vlmbench.grid.outcome import Outcome

    seen: list[schema.CellConfig] = []

    def spied(configs, **_options):
        seen.extend(configs)
        return [Outcome("x", "done") for _ in configs]

    monkeypatch.setattr(local, "run_cells", spied)
    status, _, err = command("train", "-m", "sweep=demo")
    assert status == 0
    assert err.count("left out") == 4
    assert len(seen) == 20
    names = {(c.model.name, c.finetune.name, c.domain.name) for c in seen}
    assert len(names) == 20
    assert {c.task.name for c in seen if c.model.name.startswith("tiny_llava")} == {"vqa"}
    assert ("tiny_llava", "linear_probe", "phantom_radiograph") not in names


def test_weights_that_are_no_weights_are_told_of_and_the_grid_goes_on(command, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((ASSETS / "tiny_clip" / "config.json").read_text())
    (broken / "model.safetensors").write_bytes(b"not a checkpoint")
    sources = f"model.source={broken},package:tiny_clip"
    status, out, _ = command("train", "-m", sources, "finetune=zero_shot", *SMALL, f"output={tmp_path / 'runs'}")
    assert status == 1
    assert "1 of 2 cells done, 1 not:" in out
    assert "model.safetensors" in out
    found = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert sorted(record["status"] for record in found) == ["done", "failed"]


# Hydra's launcher raises the fault itself, which is one that the user can mend.
@pytest.mark.parametrize(("launcher", "expected"), [("vlmbench_local", 1), ("basic", 2)])
def test_hydras_own_sweeper_leaves_out_what_is_impossible_and_its_status_tells(command, tmp_path, launcher, expected):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((ASSETS / "tiny_llava" / "config.json").read_text())
    (broken / "model.safetensors").write_bytes(b"not a checkpoint")
    words = ["-m", "hydra/sweeper=basic", f"hydra/launcher={launcher}", *SMALL, f"output={tmp_path / 'runs'}"]
    sources = f"model.source=package:tiny_llava,{broken}"
    status, out, err = command("train", *words, "model=tiny_llava", "finetune=linear_probe,zero_shot", sources)
    assert status == expected
    assert "Traceback" not in err
    assert "does not apply to tiny_llava" in out + err
    found = [json.loads(path.read_text()) for path in tmp_path.rglob("record.json")]
    assert {record["cell"]["finetune"] for record in found} == {"zero_shot"}
    assert sorted(record["status"] for record in found) in (["done", "failed"], ["done"])
