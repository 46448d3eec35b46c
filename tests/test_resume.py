"""A cell that is asked to stop, or is killed, goes on where it was and ends as an undisturbed one."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stopped import SMALL, At, result, run

from vlmbench.cell import fit, stopping
from vlmbench.domains.epochs import EpochSampler, UnseenBatches
from vlmbench.modules.checkpoints import AtomicCheckpointIO
from vlmbench.modules.stopping import LastCheckpoint

KILL, TERM = signal.SIGKILL, signal.SIGTERM
LLAVA = ("model=tiny_llava", "trainer.eval_batch_size=8")
CELLS = {
    "clip": ("finetune=lora", "trainer.accumulate_grad_batches=2"),
    "clip-workers": ("finetune=full", "trainer.num_workers=1"),
    "llava": (*LLAVA, "finetune=lora", "finetune.scope=ML", "task.monitor=val/accuracy"),
    "connector": (*LLAVA, "finetune=connector", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=1"),
    "coop": ("finetune=coop", "finetune.context_length=4"),
    "captions": ("task=pretrain", "finetune=full", "finetune.scope=text", "domain=phantom_shapes"),
    "budget": ("finetune=lora", "trainer.max_steps=10"),
}


@functools.cache
def undisturbed(*settings):
    """What a cell gives that nobody disturbs, and its number of batches in each epoch."""
    output = Path(os.environ["VLMBENCH_CACHE"]) / "undisturbed" / str(abs(hash(settings)))
    ended = run([*SMALL, *settings, f"output={output}"], output.with_suffix(".log"))
    assert ended.code == 0, ended.said
    return result(output)


def disturbed(tmp_path, settings, stops, minutes=10):
    """Run a cell, disturbed as told each time it is started anew, and then to its end; returns what was said."""
    arguments = [*SMALL, *settings, f"trainer.checkpoint_minutes={minutes}", f"output={tmp_path / 'runs'}"]
    said = []
    for at in stops:
        ended = run(arguments, tmp_path / "log", at)
        assert ended.code == (-KILL if at.number == KILL else 75), ended.said
        assert not list(tmp_path.rglob("record.json"))
        if at.number != KILL:
            assert "the same command goes on where it stopped" in ended.said
        said.append(ended.said)
    ended = run(arguments, tmp_path / "log")
    assert ended.code == 0, ended.said
    assert not list(tmp_path.rglob("*.ckpt"))
    return [*said, ended.said]


@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_the_batches_of_a_resumed_epoch_are_the_rest_of_it_and_the_next_epoch_is_whole(done):
    whole, rest = (UnseenBatches(EpochSampler(range(10), seed=3), 3, start) for start in ((2, 0), (2, done)))
    assert len(rest) == len(whole) == 4
    assert list(rest) == list(whole)[done:]
    for batches in (whole, rest):
        batches.order.set_epoch(3)
    assert list(rest) == list(whole)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_that_is_stopped_at_any_two_steps_ends_as_an_undisturbed_one(tmp_path, name):
    chance = random.Random(name)
    stops = [At("training_step", chance.randint(2, 5)), At("training_step", chance.randint(1, 6), TERM)]
    if name in ("connector", "budget"):  # a validation that is stopped is done anew
        stops[1:] = [At("validation_step", 1), At("validation_step", 1, TERM)]
    disturbed(tmp_path, CELLS[name], stops)
    assert result(tmp_path / "runs") == undisturbed(*CELLS[name])


def test_a_cell_that_is_killed_loses_no_more_than_the_time_between_two_checkpoints(tmp_path):
    chance = random.Random(5)
    stops = [At("training_step", chance.randint(2, 5), KILL) for _ in range(2)] + [At("predict_step", 1, KILL)]
    disturbed(tmp_path, CELLS["clip"], stops, minutes=0)
    assert result(tmp_path / "runs") == undisturbed(*CELLS["clip"])


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path):
    said = disturbed(tmp_path, CELLS["clip"], [At("torch:save", 2, KILL), At("os:fsync", 2, KILL)], minutes=0)
    assert "damaged" not in "".join(said)
    assert result(tmp_path / "runs") == undisturbed(*CELLS["clip"])


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_damaged_checkpoint_is_told_and_the_one_before_or_none_taken(tmp_path, epoch):
    batches = 7 * epoch - 3  # of 7 an epoch: in the second there is a best one to go back to
    arguments = [*SMALL, *CELLS["clip"], f"output={tmp_path / 'runs'}"]
    assert run(arguments, tmp_path / "log", At("training_step", batches)).code == 75
    (last,) = tmp_path.rglob("last.ckpt")
    last.write_bytes(last.read_bytes()[:-1000])
    said = disturbed(tmp_path, CELLS["clip"], [])
    assert "last.ckpt is damaged" in said[0]
    (record,) = tmp_path.rglob("record.json")
    assert json.loads(record.read_text())["training"]["resumed"] is (epoch == 2)
    assert result(tmp_path / "runs") == undisturbed(*CELLS["clip"])


def test_training_that_was_over_is_not_gone_on_with(tmp_path):
    # The accuracy stays as it is, to the last digit.
    settings = (
        *("finetune=full", "finetune.lr=1e-9", "task.monitor=val/accuracy"),
        *("trainer.patience=1", "trainer.max_epochs=5"),
    )
    stops = [At("vlmbench.modules.contrastive:ContrastiveModule.on_validation_epoch_end", 2)]
    disturbed(tmp_path, settings, stops)
    assert result(tmp_path / "runs") == undisturbed(*settings)
    assert result(tmp_path / "runs")["epochs"] == 2


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        # Another test may have kept the features.
        (
            "finetune=linear_probe trainer.feature_cache_gib=0",
            ("vlmbench.backbones.contrastive.clip:HfClip.features", "predict_step"),
        ),
        ("finetune=zero_shot", ("vlmbench.cell.prepared:build_domain", "vlmbench.cell.work:predictions.score")),
    ],
)
def test_outside_training_a_cell_stops_at_once_and_leaves_nothing_half_done(tmp_path, settings, calls):
    settings = tuple(settings.split())
    disturbed(tmp_path, settings, [At(call, 1, number) for call in calls for number in (signal.SIGUSR2, TERM)])
    assert result(tmp_path / "runs") == undisturbed(*settings)


def test_a_transfer_stops_too(tmp_path):
    settings = [*SMALL, "finetune=zero_shot", f"output={tmp_path / 'runs'}"]
    assert run(settings, tmp_path / "log").code == 0
    (cell,) = (path.parent for path in tmp_path.rglob("record.json"))
    other = [f"cell={cell}", "domain=phantom_ultrasound", "domain.patients=20"]
    ended = run(other, tmp_path / "log", At("predict_step", 1), command="evaluate")
    assert ended.code == 75, ended.said
    assert not list(cell.glob("transfer/*/record.json"))
    assert run(other, tmp_path / "log", command="evaluate").code == 0
    assert len(list(cell.glob("transfer/*/record.json"))) == 1


def test_a_fault_after_the_request_is_no_failure_of_the_cell(train, monkeypatch):
    def fails(*_):
        with stopping.deferred():
            stopping.request("a test")
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")

    with monkeypatch.context() as patch:
        patch.setattr("vlmbench.cell.work.build_data", fails)
        ran = train("finetune=zero_shot")
    assert ran.status == 75
    assert not ran.cells
    assert train("finetune=zero_shot").status == 0


def test_where_no_checkpoint_can_be_written_training_goes_on(tmp_path, train, monkeypatch):
    save = AtomicCheckpointIO.save_checkpoint

    def full(self, checkpoint, path, storage_options=None):
        if Path(path).name == "last.ckpt":
            raise OSError(28, "No space left on device")
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", full)
    ran = train("finetune=lora", "trainer.checkpoint_minutes=0")
    assert ran.status == 0
    assert "no checkpoint is kept of this step: [Errno 28]" in ran.err


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, path)
    with pytest.raises(AttributeError):
        io.save_checkpoint({"step": lambda: 2}, path)
    assert io.load_checkpoint(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


# ------------------------------------------------------------------------------------------------ the request itself


def python(code):
    script = f"import os, signal, sys, time\nfrom vlmbench.cell import stopping\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=180)


def test_a_second_signal_ends_at_once_but_not_its_echo():
    ran = python(
        "with stopping.stoppable(), stopping.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGUSR2); os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('alive', stopping.asked(), 'torch' in sys.modules, flush=True)\n"
        "    time.sleep(1.1); os.kill(os.getpid(), signal.SIGTERM); print('never')"
    )
    assert ran.stdout == "alive SIGUSR2 False\n"
    assert ran.returncode == -TERM


def test_handlers_of_a_launcher_stay_and_all_are_put_back():
    with stopping.stoppable():
        inside = signal.getsignal(TERM)
        with stopping.stoppable():
            assert signal.getsignal(TERM) is inside
    assert signal.getsignal(TERM) is signal.SIG_DFL
    own = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        with stopping.stoppable():
            assert signal.getsignal(signal.SIGUSR2) is not inside
            with pytest.raises(stopping.Interrupted) as stop:
                stopping.request("the launcher")
        assert (stop.value.code, stop.value.reason) == (75, "the launcher")
    finally:
        signal.signal(signal.SIGUSR2, own)


def test_ctrl_c_within_training_leaves_ctrl_c_to_what_comes_after(train, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    assert before is not signal.SIG_IGN
    with monkeypatch.context() as patch:
        patch.setattr(fit.GradientGuard, "on_train_end", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        ran = train("finetune=lora")
    assert (ran.status, ran.cells) == (130, [])
    assert signal.getsignal(signal.SIGINT) is before
    child = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout == "True\n"


def test_a_worker_leaves_the_request_to_its_parent_and_can_be_ended():
    ran = python(
        "with stopping.stoppable():\n"
        "    if not (child := os.fork()):\n"
        "        os.kill(os.getpid(), signal.SIGUSR2); os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), repr(stopping.asked()))"
    )
    assert ran.stdout == "-15 ''\n"


def test_several_processes_stop_at_the_same_step_though_one_alone_was_asked(tmp_path):
    saved = []

    class Strategy:
        def reduce_boolean_decision(self, decision, all):
            assert not all
            return True  # another process says so

    class Trainer:
        world_size, global_step, num_training_batches, should_stop, strategy = 2, 1, 10, False, Strategy()

        def save_checkpoint(self, path, weights_only):
            saved.append(path)

    last = LastCheckpoint(tmp_path / "last.ckpt", 10, stopping)
    trainer: Any = Trainer()
    module: Any = None
    with pytest.raises(stopping.Interrupted):
        last.on_train_batch_end(trainer, module, None, None, 0)
    assert saved == [tmp_path / "last.ckpt"]
