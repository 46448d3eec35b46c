"""A cell of several processes that is stopped or killed ends soon, and goes on to what it would have given."""

import functools
import json
import multiprocessing
import os
import signal
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stopped import At, result, signal_at

from vlmbench.cell import stopping
from vlmbench.cell.ranks import KILL_AFTER
from vlmbench.cell.together import run_ranks
from vlmbench.cell.told import run_one
from vlmbench.config.entry import compose
from vlmbench.modules.callbacks import BatchSeed
from vlmbench.modules.contrastive import ContrastiveModule
from vlmbench.modules.generative import GenerativeModule
from vlmbench.modules.stopping import LastCheckpoint

BASE = ["trainer.accelerator=cpu", "trainer.max_epochs=2", "task.resamples=100", "trainer.checkpoint_minutes=0"]
BASE += ["domain.audit_hashes=false", "trainer.batch_size=8", "finetune=lora"]
CLIP = [*BASE, "domain.patients=23", "domain.fraction=0.9"]  # 4 steps an epoch
LLAVA = [*BASE, "model=tiny_llava", "finetune.scope=ML", "domain.patients=15"]
DDP, FSDP = ["trainer=ddp"], ["trainer=fsdp", "trainer.precision=32-true"]
KILL, TERM = signal.SIGKILL, signal.SIGTERM
LAUNCHER, ALL = -1, -2
ENDS = 12 * KILL_AFTER  # seconds: what a loaded machine takes for the cell itself is in it


def disturbed_rank(config, at, whom):
    """Run a rank; at a moment of its work rank 0 signals the launcher, or a rank itself."""
    rank = int(os.environ["RANK"])
    launcher = multiprocessing.parent_process()
    if whom in (rank, ALL):
        signal_at(at)
    if whom == LAUNCHER and rank == 0 and launcher is not None:
        signal_at(at, launcher.pid)
    return run_one(config)


def run(settings, output, at=None, whom=LAUNCHER):
    """Run a cell in two processes; returns its exit status."""
    before, sys.argv = sys.argv, ["train", *settings, f"output={output}"]
    try:
        config = compose("train", "").configs[0]
    finally:
        sys.argv = before
    start = time.monotonic()
    status = run_ranks(config, functools.partial(disturbed_rank, at=at, whom=whom) if at else run_one)
    assert not multiprocessing.active_children()
    assert at is None or time.monotonic() - start < ENDS
    return status


def record_of(output):
    (path,) = output.rglob("record.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a cell of two processes with dropout gives that nobody disturbs."""
    output = tmp_path_factory.mktemp("undisturbed")
    assert run([*CLIP, *DDP, "finetune.dropout=0.3"], output) == 0
    return result(output)


def test_all_ranks_stop_at_one_step_whoever_is_asked_and_go_on_exactly(tmp_path, undisturbed):
    cell = [*CLIP, *DDP, "finetune.dropout=0.3"]
    for whom, at in [
        (LAUNCHER, At("training_step", 3)),
        (1, At("training_step", 2, TERM)),
        (ALL, At("validation_step", 1, TERM)),
        (1, At("predict_step", 1, TERM)),
        (0, At("vlmbench.cell.work:predictions.score", 1, TERM)),
    ]:
        assert run(cell, tmp_path, at, whom) == 75
        assert len(list(tmp_path.rglob("last.ckpt"))) == 1
        assert not list(tmp_path.rglob("record.json"))
    assert run(cell, tmp_path) == 0
    assert result(tmp_path) == undisturbed


def test_a_rank_that_is_killed_ends_the_cell_soon_and_the_next_start_goes_on(tmp_path, undisturbed):
    cell = [*CLIP, *DDP, "finetune.dropout=0.3"]
    for whom, said in [(1, "another process of the cell ended without a word"), (0, "killed by SIGKILL")]:
        assert run(cell, tmp_path, At("training_step", 3, KILL), whom) == 1
        record = record_of(tmp_path)
        assert record["status"] == "failed"
        assert said in record["error"]["message"]
    assert run(cell, tmp_path) == 0
    assert record_of(tmp_path)["training"]["resumed"]
    assert result(tmp_path) == undisturbed


def asked_at_second(step, steps):
    def counted(*given):
        steps.append(1)
        if len(steps) == 2:
            stopping.request("a test")
        return step(*given)

    return counted


@pytest.mark.parametrize(("cell", "several"), [(CLIP, DDP), (LLAVA, FSDP)], ids=["ddp", "fsdp"])
def test_a_cell_goes_on_with_another_number_of_processes(train, tmp_path, monkeypatch, cell, several):
    cell = [*cell, "finetune.dropout=0"]
    alone = train(*cell, small=False)
    assert alone.status == 0
    output = tmp_path / "moved"
    for whom in (LAUNCHER, 1):
        assert run([*cell, *several], output, At("training_step", 2), whom) == 75
    steps: list[int] = []
    for kind in (ContrastiveModule, GenerativeModule):
        monkeypatch.setattr(kind, "training_step", asked_at_second(kind.training_step, steps))
    assert train(*cell, small=False, output=output).status == 75
    assert run([*cell, *several], output) == 0
    first, second = alone.record, record_of(output)
    for one, two in zip(first["training"]["curve"], second["training"]["curve"], strict=True):
        assert one == pytest.approx(two, abs=1e-4)
    values = [{name: row["value"] for name, row in record["metrics"].items()} for record in (first, second)]
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_each_process_drops_out_by_a_stream_of_its_own_that_repeats():
    def drawn(rank: int, batch: int) -> list[float]:
        trainer: Any = SimpleNamespace(current_epoch=1, global_rank=rank)
        nothing: Any = None
        BatchSeed(3).on_train_batch_start(trainer, nothing, nothing, batch)
        return torch.rand(4).tolist()

    streams = [drawn(rank, batch) for rank in range(4) for batch in range(4)]
    assert streams == [drawn(rank, batch) for rank in range(4) for batch in range(4)]
    assert len({tuple(stream) for stream in streams}) == 16


def test_where_rank_0_can_write_no_checkpoint_it_keeps_in_step_with_the_others(tmp_path, capfd):
    met: list[str] = []

    class Strategy:
        reduce_boolean_decision = staticmethod(lambda decision, all: decision)
        barrier = staticmethod(met.append)

    class Trainer:
        world_size, global_step, num_training_batches, should_stop, strategy = 2, 1, 10, False, Strategy()

        def save_checkpoint(self, path, weights_only):
            raise OSError(28, "No space left on device")

    trainer: Any = Trainer()
    nothing: Any = None
    LastCheckpoint(tmp_path / "last.ckpt", 0, stopping).on_train_batch_end(trainer, nothing, nothing, nothing, 0)
    assert len(met) == 1
    assert "no checkpoint is kept of this step" in capfd.readouterr().err
