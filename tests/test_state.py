"""What has become of a cell, as seen from outside; how a death is recorded; what a fault tells its user to do."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from synthetic_records import make_record

from vlmbench.cell.faults import describe
from vlmbench.cell.prepared import prepare
from vlmbench.cell.recorded import forget_unnamed, record_death, record_unnamed, up_to_date
from vlmbench.config import schema
from vlmbench.domains.base import DomainError
from vlmbench.grid.cells import Grid, GridCell
from vlmbench.grid.clean import not_a_cell
from vlmbench.grid.plan import look_up
from vlmbench.records.claim import LOCK, claim
from vlmbench.records.died import LINES, cause, describe_death, kernel_log, last_lines
from vlmbench.records.lease import LAPSE_S, own_lease
from vlmbench.records.state import State, state_of
from vlmbench.records.store import RecordError, write_record
from vlmbench.reporting.load import load_rows
from vlmbench.weights.source import ASSETS

DEAD = 2**22 + 1  # above the kernel's largest process number


def put_lease(folder, *, old=0.0, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOCK).write_text(dataclasses.replace(own_lease("token", locked=True), **changes).text())
    os.utime(folder / LOCK, (time.time() - old,) * 2)


def test_where_nothing_is_nothing_was_begun(tmp_path):
    assert state_of(tmp_path / "nowhere") == State("not started")
    (tmp_path / "log.txt").touch()
    assert state_of(tmp_path) == State("not started")


def test_a_running_cell_is_seen_and_not_disturbed(tmp_path):
    with claim(tmp_path) as held:
        os.utime(tmp_path / LOCK, (time.time() - 40,) * 2)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        state = state_of(tmp_path)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
        assert (state.status, state.pid, state.host) == ("running", os.getpid(), held.lease.host)
        assert 39 < state.beat < 60
        assert str(os.getpid()) in state.text
        assert state.since.startswith("20")
        assert not state.resumable
    assert state_of(tmp_path).status == "interrupted"


def test_of_another_machine_the_beat_counts(tmp_path):
    put_lease(tmp_path, machine="another", host="node7", old=LAPSE_S - 20)
    assert (state_of(tmp_path).status, state_of(tmp_path).host) == ("running", "node7")
    put_lease(tmp_path, machine="another", host="node7", old=LAPSE_S + 5)
    assert (state_of(tmp_path).status, state_of(tmp_path).host) == ("interrupted", "node7")


def test_an_interrupted_cell_says_what_it_goes_on_from(tmp_path):
    put_lease(tmp_path, pid=DEAD)
    assert (state_of(tmp_path).status, state_of(tmp_path).resumable) == ("interrupted", False)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    state = state_of(tmp_path)
    assert (state.status, state.pid, state.resumable) == ("interrupted", DEAD, True)
    assert "last checkpoint" in state.text
    (tmp_path / LOCK).unlink()
    assert state_of(tmp_path).status == "interrupted"


def test_a_failed_cell_that_runs_again_is_running(tmp_path):
    error = {"type": "RuntimeError", "message": "the disk is on fire\nmore", "traceback": "", "mendable": False}
    times = {"started": "2026-01-01T10:00:00+00:00", "finished": "2026-01-01T10:01:30+00:00"}
    write_record(tmp_path, {"status": "failed", "error": error, "metrics": {}, **times})
    put_lease(tmp_path, pid=DEAD, host="here")
    state = state_of(tmp_path)
    assert (state.status, state.text, state.seconds) == ("failed", "RuntimeError: the disk is on fire", 90.0)
    assert (state.host, state.since) == ("here", times["finished"])
    with claim(tmp_path):
        assert state_of(tmp_path).status == "running"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema": 1}', '{"schema": 99}', '{"schema": 1, "status": "done", "metrics": 3}', "\udcff"],
)
def test_a_damaged_record_is_a_state_and_says_so(tmp_path, text):
    (tmp_path / "record.json").write_bytes(text.encode(errors="surrogateescape"))
    state = state_of(tmp_path)
    assert state.status == "failed"
    assert "damaged" in state.text
    assert str(tmp_path) in state.text


def test_states_of_thousands_take_seconds(tmp_path):
    source = json.dumps(make_record())
    for number in range(1000):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "record.json").write_text(source)
    begun = time.monotonic()
    assert {state_of(tmp_path / str(number)).status for number in range(1000)} == {"done"}
    assert time.monotonic() - begun < 3


# ------------------------------------------------------------------------------------------------------ done, and dead


def config(output, **task):
    return schema.CellConfig(
        model=schema.ContrastiveModelConfig(name="tiny_clip", source="package:tiny_clip", role="generalist"),
        task=schema.DiagnosisTaskConfig(**{"resamples": 100, **task}),
        finetune=schema.ZeroShotConfig(),
        domain=schema.PhantomDomainConfig(name="p", modality="oct", modalities=["oct"], patients=20),
        output=str(output),
    )


def test_a_done_cell_is_told_with_its_result_and_whether_it_is_up_to_date(tmp_path):
    from vlmbench.cell.run import run_prepared

    done = prepare(config(tmp_path))
    record = run_prepared(done)
    state = state_of(done.folder)
    row = record["metrics"]["auroc"]
    assert state.status == "done"
    assert state.text == f"auroc {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    assert state.seconds == record["cost"]["seconds"]["total"] > 0
    assert state.host == record["environment"]["host"]
    assert up_to_date(config(tmp_path), done.folder)
    assert not up_to_date(config(tmp_path, resamples=50), done.folder)
    told = json.loads((done.folder / "record.json").read_text())
    other = config(tmp_path)
    other.model.role = "specialist"
    assert not up_to_date(other, done.folder)
    assert record_death(config(tmp_path), -signal.SIGKILL, time.time() + 9) == told  # nothing is written over it
    assert up_to_date(config(tmp_path), done.folder)
    (done.folder / "record.json").write_text("{")
    assert not up_to_date(config(tmp_path), done.folder)
    assert not up_to_date(config(tmp_path), tmp_path / "nowhere")


def test_a_death_is_a_failed_record_and_the_checkpoint_stays(tmp_path):
    dead = prepare(config(tmp_path))
    put_lease(dead.folder, pid=DEAD, taken=1_780_000_000.0)
    (dead.folder / "checkpoints").mkdir()
    (dead.folder / "checkpoints" / "last.ckpt").write_bytes(b"half-way")
    (dead.folder / "log.txt").write_text("epoch 1\n" * 50 + "epoch 2: 10%\repoch 2: 90%\n")
    record = record_death(config(tmp_path), -signal.SIGKILL, 0.0)
    assert record is not None
    assert "SIGKILL: out of memory?" in record["error"]["message"]
    assert record["error"]["traceback"].endswith("epoch 1\nepoch 2: 90%")
    assert record["started"] == "2026-05-28T20:26:40+00:00"
    state = state_of(dead.folder)
    assert (state.status, state.resumable) == ("failed", True)
    assert state.text.startswith("ProcessDied: the process was killed by SIGKILL")
    assert json.loads((dead.folder / "record.json").read_text())["hashes"]["data"] == dead.domain.fingerprint


def test_a_death_takes_the_place_of_an_earlier_failure_but_not_of_what_the_process_has_said(tmp_path):
    folder = prepare(config(tmp_path)).folder
    first = record_death(config(tmp_path), -signal.SIGSEGV, time.time() - 60)
    assert first is not None
    began = time.time()
    assert record_death(config(tmp_path), -signal.SIGKILL, began - 60) == json.loads(
        (folder / "record.json").read_text()
    )
    assert "SIGSEGV" in state_of(folder).text
    (folder / "record.json").write_text(json.dumps({"schema": 1, **first, "finished": "2026-01-01T00:00:00+00:00"}))
    put_lease(folder, pid=DEAD, taken=began - 3600)  # of the earlier try; this one died before it had its own
    again = record_death(config(tmp_path), -signal.SIGKILL, began)
    assert again is not None
    assert "SIGKILL" in again["error"]["message"]
    assert "SIGKILL" in state_of(folder).text
    assert again["started"] >= first["started"]


def test_a_cell_without_a_name_has_a_failed_record_until_it_has_one(tmp_path):
    from vlmbench.cell.run import run_prepared

    broken = config(tmp_path / "runs")
    broken.model.source = str(tmp_path / "nowhere")
    folder = record_unnamed(broken, describe(DomainError("3.png is no image")), "2026-01-01T00:00:00+00:00")
    assert state_of(folder).status == "failed"
    assert state_of(folder).text == "DomainError: 3.png is no image"
    assert not not_a_cell(folder)
    (row,) = load_rows(tmp_path / "runs")[0]
    assert (row.model, row.domain, row.text("status")) == ("tiny_clip", "p", "failed")
    (looked,) = look_up(Grid("x", [GridCell(broken, ())], []))
    assert (looked.name, looked.state.status) == (None, "failed")
    run_prepared(prepare(config(tmp_path / "runs")))  # the same with other weights: says nothing of this one
    assert state_of(folder).status == "failed"
    shutil.copytree(ASSETS / "tiny_clip", tmp_path / "nowhere")
    named = prepare(broken)
    with claim(folder):  # another launcher, to whom the data are still missing
        forget_unnamed(named.config)
    assert folder.exists()
    run_prepared(named)
    assert [path.parent for path in (tmp_path / "runs").rglob("record.json")] == [named.folder]
    assert not folder.exists()


def test_the_state_of_a_cell_of_this_machine_is_read_without_writing(tmp_path):
    with claim(tmp_path):
        before = tmp_path.stat().st_mtime_ns
        assert state_of(tmp_path).status == "running"
        assert tmp_path.stat().st_mtime_ns == before


def test_no_death_is_recorded_of_a_cell_that_lives_elsewhere_or_was_asked_to_stop(tmp_path):
    folder = prepare(config(tmp_path)).folder
    assert record_death(config(tmp_path), -signal.SIGTERM, 0.0) is None
    assert record_death(config(tmp_path), -signal.SIGINT, 0.0) is None
    assert not folder.exists()
    with claim(folder):
        assert record_death(config(tmp_path), -signal.SIGKILL, 0.0) is None
    assert not (folder / "record.json").exists()
    assert record_death(config(tmp_path), -signal.SIGSEGV, 0.0) is not None


def test_a_death_that_cannot_be_recorded_is_told_and_ends_nobody(tmp_path, capfd):
    broken = config(tmp_path)
    broken.model.source = str(tmp_path / "nowhere")
    assert record_death(broken, -signal.SIGKILL, 0.0) is None
    assert "how it died cannot be recorded" in capfd.readouterr().err


def test_causes_are_named(tmp_path):
    kernel = "6,1,1,-;Out of memory: Killed process 77 (python) total-vm:9kB\n6,2,2,-;Killed process 7 (python)"
    assert "out of memory. The kernel says: 6,2,2,-;Killed process 7 " in cause(-signal.SIGKILL, kernel, 7)
    assert "out of memory?" in cause(-signal.SIGKILL, kernel, 8)
    assert "SIGSEGV" in cause(-signal.SIGSEGV)
    assert "memory" not in cause(-signal.SIGSEGV)
    assert "exit status 134" in cause(134)
    assert "signal 250" in cause(-250)
    assert describe_death(1, tmp_path)["traceback"] == "It left no log.txt."
    (tmp_path / "log.txt").write_text("".join(f"{n} {'x' * 100}\n" for n in range(1000)))
    assert last_lines(tmp_path / "log.txt").splitlines()[-1].startswith("999 ")
    assert len(last_lines(tmp_path / "log.txt").splitlines()) == LINES
    assert isinstance(kernel_log(), str)


def test_states_deaths_and_what_is_up_to_date_are_known_without_torch(tmp_path):
    code = (
        "import sys, vlmbench.records.state, vlmbench.cell.run, vlmbench.cell.told;"
        "sys.exit(f'{sys.modules.keys() & {\"torch\", \"lightning\"}}' if 'torch' in sys.modules else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


# ------------------------------------------------------------------------------------------------ what to do about it


def caused(error, cause):
    error.__cause__ = cause
    return error


MEMORY = [
    MemoryError(),
    MemoryError("Unable to allocate 3. GiB for an array"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
    caused(RuntimeError("could not build the batch"), MemoryError()),
    RuntimeError("could not create a primitive"),
    RuntimeError("std::bad_alloc"),
    ImportError("libx.so: failed to map segment from shared object"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_says_what_to_do(error):
    told = describe(error)
    assert told["message"].startswith("out of memory")
    assert "trainer.batch_size" in told["message"]
    assert str(error).strip() in told["message"]
    assert told["mendable"] is True
    assert told["type"] == type(error).__name__


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "Quota")])
def test_a_full_disk_says_what_to_do(error):
    told = describe(caused(RuntimeError("unexpected pos 64 vs 0"), error))
    assert told["message"].startswith("the disk")
    assert "goes on where it stopped" in told["message"]


def test_shared_memory_is_not_the_batch_size():
    told = describe(RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. out of shared memory"))
    assert "trainer.num_workers" in told["message"]


def test_what_says_everything_is_left_as_it_is():
    onednn = RuntimeError("could not create a primitive descriptor for a convolution")
    for error in (ValueError("3 classes, 2 rows"), onednn, RecordError("record.json cannot be written: out of memory")):
        assert describe(error)["message"] == str(error)
    assert [describe(error)["mendable"] for error in (ValueError(), RecordError())] == [False, True]
