"""launcher=slurm on a real SLURM of this one machine: the same records, preempted, killed, queued twice, misused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm.cluster import Cluster, missing, running

from vlmbench.grid.pack import wanted
from vlmbench.grid.submitted import FILE

pytestmark = pytest.mark.xdist_group("slurm")  # one SLURM for all
SMALL = ["domain.patients=20", "trainer.max_epochs=8", "trainer.batch_size=8", "task.resamples=100"]
CELL = ["model=tiny_clip", "finetune=lora", "finetune.dropout=0.1"]
PLAIN = ["model=tiny_clip", "finetune=lora", "finetune.dropout=0"]  # what two processes compute as one does
GRID = ["model=tiny_clip", "finetune=lora", "finetune.dropout=0,0.1,0.2"]
EACH_STEP = "trainer.checkpoint_minutes=0"  # so that a test knows when training has begun
WIDE = ["trainer.devices=2", "trainer.strategy=ddp"]
# Submitted, and never begun.
LATER = "+hydra.launcher.additional_parameters.begin=now+1hour"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(f"no SLURM can be started here: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="vlmbench-slurm-"))
    with running(folder, cpus=2, gpus=2) as started:
        yield started
    assert not folder.exists()
    assert not started.munge.exists()


@pytest.fixture
def slurm(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """SLURM's commands, with an empty queue before and after."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def ask(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    yield ask
    subprocess.run(["scancel", "--user=root"], check=True)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid by launcher=local."""
    output = tmp_path_factory.mktemp("undisturbed")
    status, _, err = apart("-m", *GRID, *SMALL, f"output={output}", "hydra.launcher.jobs=2")
    assert status == 0, err
    return output


def apart(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run `train` in a process of its own, which says on its last line whether torch was imported."""
    ended = subprocess.run(words_of(*arguments), capture_output=True, text=True, env={**os.environ, **environment})
    return ended.returncode, ended.stdout, ended.stderr


def words_of(*arguments: str) -> list[str]:
    code = (
        "import atexit, sys; atexit.register(lambda: print('torch' if 'torch' in sys.modules else 'light'));"
        "from vlmbench.config.entry import run; import vlmbench.train; run(vlmbench.train.main)"
    )
    return [sys.executable, "-c", code, *arguments]


def on_slurm(output: Path, *arguments: str) -> list[str]:
    return ["-m", "launcher=slurm", *SMALL, f"output={output}", *arguments]


def results(output: Path) -> dict[str, tuple[dict, bytes]]:
    """Return metrics and predictions by cell."""
    return {
        path.parent.name: (
            json.loads(path.read_text())["metrics"],
            (path.parent / "predictions.parquet").read_bytes(),
        )
        for path in output.rglob("record.json")
    }


def the_record(output: Path) -> dict:
    (path,) = output.rglob("record.json")
    return json.loads(path.read_text())


def until(true: Callable[[], object], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def begun(output: Path, slurm: Callable[..., str], *cell: str) -> str:
    """Submit a cell and return the number of its job in the middle of the training."""
    status, out, err = apart(*on_slurm(output, *cell, EACH_STEP, "hydra.launcher.wait=false"))
    assert status == 0, err
    assert "0 of 1 cells done, 1 submitted." in out
    job = slurm("squeue", "--noheader", "--format=%i")
    until(lambda: list(output.rglob("last.ckpt")))
    return job


def test_a_grid_of_arrays_leaves_the_records_of_the_local_launcher(slurm, undisturbed, tmp_path):
    arguments = on_slurm(tmp_path, *GRID, "hydra.launcher.cells_per_job=2", "hydra.launcher.cpus_per_task=1")
    status, out, err = apart(*arguments)
    assert status == 0, out + err
    assert "submitted 3 cells as 2 jobs" in out
    assert "3 of 3 cells done." in out
    assert "sacct" not in out + err
    assert out.splitlines()[-1] == "light"
    expected = results(undisturbed)
    assert len(expected) == 3
    assert results(tmp_path) == expected
    logs = "".join(path.read_text() for path in (tmp_path / ".sweep").rglob("*_log.*"))
    logs += "".join(path.read_text() for path in tmp_path.rglob("log.txt"))
    assert "epoch 1/8" in logs
    assert "srun` command is available" not in logs
    status, out, _ = apart(*arguments)
    assert status == 0
    assert "3 cells: 3 done already, 0 submitted before, 0 to submit" in out


def test_a_preempted_job_requeues_itself_and_ends_with_the_same_metrics(slurm, undisturbed, tmp_path):
    job = begun(tmp_path, slurm, *CELL)
    # As submitit's own tests have it: SIGTERM comes first where a job is preempted.
    slurm("scancel", "--signal=TERM", job)
    slurm("scancel", "--signal=USR2", job)
    until(lambda: "Restarts=1" in slurm("scontrol", "show", "job", job))
    status, out, err = apart(*on_slurm(tmp_path, *CELL))
    assert status == 0, out + err
    assert "1 cells: 0 done already, 1 submitted before, 0 to submit" in out
    assert_resumed(tmp_path, undisturbed)


def assert_resumed(output: Path, undisturbed: Path) -> None:
    """Compare a cell that was stopped within its training with the same that was not, byte for byte."""
    (name,) = results(output)
    assert results(output)[name] == results(undisturbed)[name]
    training, whole = (
        json.loads(next(path.rglob(f"{name}/record.json")).read_text())["training"] for path in (output, undisturbed)
    )
    assert (training["resumed"], whole["resumed"]) == (True, False)
    assert {**training, "resumed": False} == whole


def test_a_killed_job_is_taken_up_by_the_next_launch(cluster, slurm, undisturbed, tmp_path):
    words = words_of(*on_slurm(tmp_path, *CELL, EACH_STEP))
    launcher = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    until(lambda: list(tmp_path.rglob("last.ckpt")))
    job = slurm("squeue", "--noheader", "--format=%i")
    cluster.kill("SLURM_STEP_ID")  # scancel --signal=KILL is no kill, but cancels the job
    out, _ = launcher.communicate(timeout=180)
    assert launcher.returncode == 1
    assert f"KILLED  job {job}: FAILED (NonZeroExitCode); see {tmp_path}/.sweep/slurm/{job}/{job}_0_log.err" in out
    assert not list(tmp_path.rglob("record.json"))
    status, out, err = apart(*on_slurm(tmp_path, *CELL))
    assert status == 0, out + err
    assert "0 submitted before, 1 to submit" in out
    assert_resumed(tmp_path, undisturbed)


def test_what_is_queued_is_not_submitted_again_and_ctrl_c_leaves_it_there(slurm, tmp_path):
    arguments = on_slurm(tmp_path, *GRID, LATER, "hydra.launcher.gpus_per_node=1", "hydra.launcher.cells_per_job=1")
    one, two = (
        subprocess.Popen(words_of(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    )

    def queue() -> list[str]:
        return slurm("squeue", "--noheader", "--array", "--format=%i %b %T").splitlines()

    until(lambda: len(queue()) >= 3)
    status, out, err = apart(*arguments, "hydra.launcher.wait=false")
    assert status == 0, err
    assert "3 cells: 0 done already, 3 submitted before, 0 to submit" in out
    for process in (one, two):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=180)
        assert process.returncode == 130
        assert "3 cells go on in SLURM. squeue --jobs=" in err
        assert "scancel" in err
    assert len(queue()) == 3
    assert all(line.endswith("gres:gpu:1 PENDING") for line in queue())


def test_a_cell_on_several_devices_is_as_many_tasks_of_a_job_of_its_own(slurm, command, tmp_path):
    wide = [*WIDE, "trainer.accelerator=gpu", "seed=0,1"]
    status, out, err = command("train", *on_slurm(tmp_path, *CELL, *wide, LATER, "hydra.launcher.wait=false"))
    assert status == 0, err
    assert "submitted 2 cells as 2 jobs" in out
    shapes = slurm("squeue", "--noheader", "--array", "--format=%D %C %b").splitlines()
    assert shapes == ["1 2 gres:gpu:2"] * 2
    (script,) = (tmp_path / ".sweep").rglob("*_submission.sh")
    assert "--ntasks-per-node=2" in script.read_text()


def test_two_preempted_tasks_of_gloo_train_as_one_process_with_the_same_batch(slurm, undisturbed, tmp_path):
    wide = [*WIDE, "trainer.accelerator=cpu", "hydra.launcher.cpus_per_task=1"]
    job = begun(tmp_path, slurm, *PLAIN, *wide)
    slurm("scancel", "--signal=USR2", job)
    until(lambda: "Restarts=1" in slurm("scontrol", "show", "job", job))
    status, out, err = apart(*on_slurm(tmp_path, *PLAIN, *wide))
    assert status == 0, out + err
    together = the_record(tmp_path)
    alone = json.loads(next(undisturbed.rglob(f"*{together['identity'][:10]}/record.json")).read_text())
    assert (alone["cost"]["devices"], together["cost"]["devices"]) == (1, 2)
    assert together["training"]["resumed"] is True
    assert together["training"]["epochs"] == alone["training"]["epochs"]
    for one, two in zip(alone["training"]["curve"], together["training"]["curve"], strict=True):
        assert one == pytest.approx(two, abs=1e-4)
    values = [{name: row["value"] for name, row in record["metrics"].items()} for record in (alone, together)]
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_an_unknown_partition_and_what_sbatch_refuses_are_one_line(slurm, tmp_path):
    status, out, err = apart(*on_slurm(tmp_path, *CELL, "hydra.launcher.partition=mian"))
    assert (status, out) == (2, "light\n")
    expected = (
        "vlmbench: hydra.launcher.partition='mian' is not valid. Did you mean 'main'? Valid choices: main, urgent.\n"
    )
    assert err == expected
    status, out, err = apart(*on_slurm(tmp_path, *CELL, "hydra.launcher.gpus_per_node=3"))
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "sbatch refuses the job:" in err
    assert "Requested node configuration is not available" in err
    assert out.splitlines()[-1] == "light"


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A directory with commands of SLURM's names, which do nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "srun", "squeue", "sinfo", "scontrol"):
        (folder / name).symlink_to(shutil.which("true") or "/bin/true")
    return folder


def test_without_slurm_one_line_says_so_before_torch_is_imported(commands, tmp_path):
    (commands / "sbatch").unlink()
    status, out, err = apart(*on_slurm(tmp_path, *CELL), PATH=str(commands))
    assert (status, out) == (2, "light\n")
    assert len(err.splitlines()) == 1
    assert "there is no sbatch on the PATH" in err


def test_a_slurm_conf_that_points_nowhere_is_one_line(commands, tmp_path):
    status, out, err = apart(*on_slurm(tmp_path, *CELL), PATH=str(commands), SLURM_CONF=str(tmp_path / "none.conf"))
    assert (status, out) == (2, "light\n")
    assert err == f"vlmbench: SLURM_CONF={tmp_path}/none.conf is no file. Unset it, or name the cluster's slurm.conf.\n"


@pytest.mark.parametrize(("state", "goes_on"), [("RUNNING", True), ("COMPLETING", False), ("", False)])
def test_a_cancelled_job_does_not_put_itself_back_into_the_queue(commands, monkeypatch, state, goes_on):
    (commands / "squeue").unlink()
    (commands / "squeue").write_text(f"#!/bin/sh\necho {state}\n")
    (commands / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert wanted() is goes_on


IMPOSSIBLE = ["nodes=2", "tasks_per_node=2", "jobs=0", "cells_per_job=-1", "pack_minutes=-1", "pack_minutes=nan"]


@pytest.mark.parametrize("word", [f"hydra.launcher.{word}" for word in IMPOSSIBLE])
def test_settings_that_cannot_be_are_refused(command, tmp_path, word):
    status, _, err = command("train", *on_slurm(tmp_path, *CELL, word))
    assert status == 2
    assert err.startswith(f"vlmbench: {word.partition('=')[0]}")


def test_more_jobs_than_an_array_may_have_are_several_arrays(slurm, command, tmp_path, monkeypatch):
    monkeypatch.setattr("vlmbench.grid.slurm.longest_array", lambda: 2)
    arguments = on_slurm(tmp_path, *CELL, "seed=0,1,2,3,4", LATER, "hydra.launcher.wait=false")
    status, out, err = command("train", *arguments, "hydra.launcher.pack_minutes=0")
    assert status == 0, err
    assert out.count("submitted 2 cells as 2 jobs") == 2
    assert out.count("submitted 1 cells as 1 jobs") == 1
    assert len(set(slurm("squeue", "--noheader", "--array", "--format=%j").splitlines())) == 3
    status, out, err = command("train", *arguments)
    assert "5 cells: 0 done already, 5 submitted before, 0 to submit" in out


def test_a_damaged_list_of_what_is_queued_is_not_taken_for_an_empty_one(slurm, tmp_path):
    folder = tmp_path / ".sweep" / "slurm"
    folder.mkdir(parents=True)
    (folder / FILE).write_text('[{"job": "1"')
    status, _, err = apart(*on_slurm(tmp_path, *CELL))
    assert status == 2
    assert f"{folder / FILE} cannot be read" in err
    assert (folder / FILE).read_text() == '[{"job": "1"'
