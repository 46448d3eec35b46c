"""The local launcher: places and GPUs, order, other launchers, and the end of every process."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from spied_cells import cell, notes, spied_child

from vlmbench.cell.naming import Namer
from vlmbench.config import schema
from vlmbench.config.checks import encoded_splits, frozen_image, uses_linear_head
from vlmbench.config.restore import cell_from_dict
from vlmbench.grid import launch, local, processes
from vlmbench.grid.counted import phases
from vlmbench.grid.devices import device_of
from vlmbench.grid.estimate import estimate
from vlmbench.grid.local import run_cells, stop_all
from vlmbench.grid.measured import Measured
from vlmbench.grid.order import seconds_left, turns
from vlmbench.grid.outcome import Outcome, told
from vlmbench.grid.slots import SlotError, Slots, gpu_names, make_slots, threads_of
from vlmbench.grid.workload import Rows
from vlmbench.records.claim import claim
from vlmbench.records.store import write_record

MIG = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaa)
  MIG 3g.40gb     Device  0: (UUID: MIG-one)
  MIG 3g.40gb     Device  1: (UUID: MIG-two)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbb)
"""


@pytest.fixture
def spied(monkeypatch):
    monkeypatch.setattr(processes, "run_child", spied_child)


def until(holds, seconds=180.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


# Places


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("0,1", ["0", "1"]),
        ("3", ["3"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,-1,3", ["2"]),
        ("MIG-GPU-5/1/0, GPU-8932f937", ["MIG-GPU-5/1/0", "GPU-8932f937"]),
    ],
)
def test_visible_gpus_are_named_as_they_are_in_the_variable(visible, names):
    assert gpu_names(None, {"CUDA_VISIBLE_DEVICES": visible}) == names


def test_without_the_variable_the_driver_is_asked_and_slices_stand_for_their_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_names(None, {}) is None
    (tmp_path / "listed").write_text(MIG)
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n/bin/cat {tmp_path}/listed\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert gpu_names(None, {}) == ["MIG-one", "MIG-two", "1"]
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert gpu_names(None, {}) is None


def test_gpus_can_be_taken_for_granted_but_not_more_than_are_visible():
    assert gpu_names(2, {}) == ["0", "1"]
    assert gpu_names(1, {"CUDA_VISIBLE_DEVICES": "5,7"}) == ["5"]
    assert gpu_names(0, {}) == []
    with pytest.raises(SlotError, match="lists 1"):
        gpu_names(2, {"CUDA_VISIBLE_DEVICES": "5"})


def test_gpus_are_handed_out_shared_and_taken_back(tmp_path):
    small, large = cell(tmp_path), cell(tmp_path, devices=2)
    slots = Slots(jobs=8, gpus=["a", "b"], cells_per_gpu=2)
    first, second = slots.take(small), slots.take(small)
    assert first
    assert second
    assert (first.gpus, second.gpus) == (("a",), ("b",))  # the emptier one first
    assert slots.take(large) is None  # several devices are not shared
    slots.give(second)
    slots.give(first)
    whole = slots.take(large)
    assert whole
    assert slots.environment(whole) == {"CUDA_VISIBLE_DEVICES": "a,b"}
    assert slots.take(small) is None
    on_cpu = slots.take(cell(tmp_path, accelerator="cpu"))
    assert on_cpu
    assert slots.environment(on_cpu) == {"CUDA_VISIBLE_DEVICES": ""}
    with pytest.raises(SlotError, match=r"trainer.devices=3, and there are 2 GPUs"):
        slots.check(cell(tmp_path, devices=3))


def test_a_cell_of_two_processes_takes_two_places_and_never_more_than_there_are(tmp_path):
    two = cell(tmp_path, devices=2, accelerator="cpu")
    slots = Slots(jobs=2, gpus=None)
    taken = slots.take(two)
    assert taken
    assert slots.take(cell(tmp_path)) is None
    assert slots.environment(taken) == {}
    assert Slots(jobs=1, gpus=None).take(two) is not None


def test_threads_are_shared_out_and_never_more_than_asked_for(monkeypatch):
    monkeypatch.setattr("vlmbench.grid.slots.cores", lambda: 8)
    assert threads_of(2, {}) == 4
    assert threads_of(2, {"OMP_NUM_THREADS": "3"}) == 3
    assert threads_of(4, {"OMP_NUM_THREADS": "3"}) == 2
    assert threads_of(16, {}) == 1
    monkeypatch.setattr("vlmbench.grid.slots._found", lambda: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert make_slots(None, None, 1).jobs == 2
    assert make_slots(None, None, 1, cores_of_cell=1).jobs == 8
    assert make_slots(None, 4, 2).jobs == 8
    with pytest.raises(SlotError, match=r"hydra.launcher.jobs=0"):
        make_slots(0, None, 1)


# Order


def probe(name: str, finetune: schema.FinetuneConfig, seed: int = 0, **domain) -> schema.CellConfig:
    return schema.CellConfig(
        model=schema.ContrastiveModelConfig(name=name, source=f"package:{name}", role="generalist"),
        task=schema.DiagnosisTaskConfig(),
        finetune=finetune,
        domain=schema.PhantomDomainConfig(name="p", modality="oct", modalities=["oct"], **domain),
        seed=seed,
    )


LORA = schema.LoraConfig(lr=1e-3, scope="vision")
TEXT = schema.LoraConfig(lr=1e-3, scope="vision", classifier="text")
PROBE, SHOT = schema.LinearProbeConfig(), schema.ZeroShotConfig()


def test_the_first_of_a_group_encodes_and_its_siblings_wait():
    few = probe("a", PROBE, shots=4)
    cells = [few, *(probe("a", method, seed) for seed in (0, 1) for method in (SHOT, LORA, PROBE))]
    order = turns(cells)
    assert [turn.index for turn in order] == [3, 0, 1, 2, 4, 5, 6]
    assert {turn.index: turn.after for turn in order} == {3: None, 0: 3, 1: 3, 2: 3, 4: 3, 5: 3, 6: 3}
    assert turns(cells) == order


def test_other_models_and_domains_are_groups_of_their_own_and_the_longest_comes_first():
    cells = [probe("a", PROBE), probe("b", PROBE), probe("b", LORA), probe("a", PROBE, patients=50)]
    assert [turn.after for turn in turns(cells)] == [None, None, 1, None]
    seconds = {"a": 5.0, "b": 1.0}
    order = turns(cells, lambda config: seconds[config.model.name] * (10 if config is cells[3] else 1))
    assert [turn.index for turn in order] == [3, 0, 1, 2]
    long_lora = turns(cells, lambda config: 20.0 if config.finetune is LORA else 1.0)
    assert [turn.index for turn in long_lora] == [1, 2, 0, 3]  # the probe before the LoRA that waits for it


def test_nobody_waits_for_one_that_trains_or_that_encodes_other_splits():
    order = turns([probe("a", LORA), probe("a", SHOT), probe("a", LORA, seed=1)])
    assert [(turn.index, turn.after) for turn in order] == [(0, None), (1, None), (2, None)]
    order = turns([probe("a", SHOT), probe("a", LORA), probe("a", SHOT, seed=1)])
    assert [(turn.index, turn.after) for turn in order] == [(0, None), (1, None), (2, 0)]


def test_images_are_encoded_before_a_linear_head_and_where_their_tower_is_frozen():
    vqa = schema.CellConfig(
        model=schema.GenerativeModelConfig(name="g", source="package:g", role="generalist", architecture="llava"),
        task=schema.VqaTaskConfig(),
        finetune=schema.ZeroShotConfig(),
        domain=schema.PhantomDomainConfig(name="p", modality="oct", modalities=["oct"]),
    )
    words = schema.LoraConfig(lr=1e-3, scope="text", classifier="text")
    cells = [vqa, *(probe("a", method) for method in (SHOT, PROBE, LORA, TEXT, words))]
    assert [uses_linear_head(config) for config in cells] == [False, False, True, True, False, False]
    assert [frozen_image(config) for config in cells] == [False, True, True, False, False, True]
    everything = ("train", "val", "test")
    assert [encoded_splits(config) for config in cells] == [(), ("test",), everything, ("train",), (), everything]
    trial = dataclasses.replace(cells[2], task=schema.DiagnosisTaskConfig(evaluate_on="val"))
    assert encoded_splits(trial) == ("train", "val")


def test_what_is_encoded_once_is_counted_once():
    few, whole = (estimate(probe("tiny_clip", PROBE, fraction=share)) for share in (0.5, 1.0))
    assert few.encoding.keys() == {"train", "val", "test"}
    assert few.encoding["train"] == pytest.approx(whole.encoding["train"], rel=0.1)  # that of the whole
    assert 0 < estimate(probe("tiny_clip", SHOT)).encoding["test"] == whole.encoding["test"] < whole.seconds
    assert not estimate(probe("tiny_clip", TEXT)).encoding


def test_prompts_that_are_tried_take_their_time_and_measure_none_that_tries_fewer():
    model = schema.GenerativeModelConfig(name="tiny_llava", source="package:tiny_llava", role="generalist")
    alone = dataclasses.replace(probe("tiny_llava", SHOT, patients=100), model=model, task=schema.VqaTaskConfig())
    many = dataclasses.replace(alone, task=schema.VqaTaskConfig(prompts=schema.PromptsConfig(candidates=8)))
    counted = [phases(config, Rows(120, 30, 50), device_of(config)).predict for config in (alone, many)]
    assert counted[1] / counted[0] == pytest.approx((50 + 8 * 30) / 50, rel=0.2)
    seconds = {"encode": 1.0, "predict": 2.0, "total": 4.0}
    record = {
        "status": "done", "kind": "cell", "cost": {"seconds": seconds}, "environment": {"device": "cpu"},
        "cell": {"model": "tiny_llava", "finetune": "zero_shot", "scope": "", "task": "vqa"},
        "config": dataclasses.asdict(alone), "data": {"splits": {"test": {"examples": 50}}},
    }  # fmt: skip
    measured = Measured([record])
    assert measured.like(alone)
    assert not measured.like(many)


def test_the_time_left_counts_cells_that_run_side_by_side():
    assert seconds_left([], [1, 1], [], 2) is None
    assert seconds_left([(1, 10), (1, 20)], [1, 1], [(1, 5)], 1) == pytest.approx(40)
    assert seconds_left([(1, 10), (1, 20)], [1, 1], [(1, 5)], 2) == pytest.approx(20)
    assert seconds_left([(1, 10)], [], [(1, 30)], 4) == 0  # later than expected: soon


# Processes


def test_each_cell_sees_its_own_gpus_which_come_back_however_it_ends(tmp_path, spied):
    cells = [cell(tmp_path, "dies" if seed == 1 else "ends", seed=seed) for seed in range(5)]
    cells.append(cell(tmp_path, seed=5, accelerator="cpu"))
    outcomes = run_cells(cells, jobs=3, gpus=2)
    assert [outcome.status for outcome in outcomes] == ["done", "killed", "done", "done", "done", "done"]
    assert "SIGKILL" in outcomes[1].text
    seen = {said["seed"]: said for said in notes(tmp_path) if "began" in said}
    assert {seen[seed]["CUDA_VISIBLE_DEVICES"] for seed in range(5)} == {"0", "1"}
    assert seen[5]["CUDA_VISIBLE_DEVICES"] == ""
    assert all(said["cuda"] and said["threads"] == 1 for said in seen.values())
    ended = {said["seed"]: said["ended"] for said in notes(tmp_path) if "ended" in said}
    for one, other in itertools.combinations((0, 2, 3, 4), 2):
        if seen[one]["CUDA_VISIBLE_DEVICES"] == seen[other]["CUDA_VISIBLE_DEVICES"]:
            assert ended[one] < seen[other]["began"] or ended[other] < seen[one]["began"]


def test_a_cell_on_two_devices_is_two_ranks_with_both_gpus(tmp_path, spied):
    assert [outcome.status for outcome in run_cells([cell(tmp_path, devices=2)], gpus=2)] == ["done"]
    seen = sorted((said for said in notes(tmp_path) if "began" in said), key=lambda said: said["RANK"])
    assert [(said["RANK"], said["LOCAL_RANK"], said["WORLD_SIZE"]) for said in seen] == [
        ("0", "0", "2"),
        ("1", "1", "2"),
    ]
    assert {said["CUDA_VISIBLE_DEVICES"] for said in seen} == {"0,1"}
    assert len({said["MASTER_PORT"] for said in seen}) == 1
    assert {said["MASTER_ADDR"] for said in seen} == {"127.0.0.1"}


def test_a_cell_on_several_nodes_fails_alone(tmp_path, spied):
    wide = cell(tmp_path, devices=2, nodes=2, accelerator="cpu")
    outcomes = run_cells([wide, cell(tmp_path, seed=1)], jobs=2)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "launcher=slurm" in outcomes[0].text


def test_a_rank_that_dies_takes_the_others_with_it(tmp_path, spied, monkeypatch):
    monkeypatch.setattr(processes, "KILL_AFTER", 1.0)
    (outcome,) = run_cells([cell(tmp_path, "dies", devices=2, accelerator="cpu")], jobs=2)
    assert outcome.status == "killed"
    assert "SIGKILL" in outcome.text
    assert all(not alive(said["pid"]) for said in notes(tmp_path) if "pid" in said)


def test_a_cell_that_is_listed_twice_runs_once_and_counts_once(tmp_path, spied, capfd):
    outcomes = run_cells([cell(tmp_path), cell(tmp_path), cell(tmp_path, seed=1)], jobs=2)
    assert [outcome.repeated for outcome in outcomes] == [False, True, False]
    assert sorted(said["seed"] for said in notes(tmp_path) if "began" in said) == [0, 1]
    assert "1 of the cells are listed more than once" in capfd.readouterr().out
    assert told(outcomes) == 0
    assert "2 of 2 cells done." in capfd.readouterr().out


def test_more_gpus_than_there_are_fail_the_cell_alone(tmp_path, spied):
    outcomes = run_cells([cell(tmp_path, devices=4), cell(tmp_path, seed=1)], gpus=1)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "trainer.devices=4, and there are 1 GPUs here" in outcomes[0].text


# The end


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_launcher_that_is_asked_to_stop_lets_cells_save(tmp_path, spied, number, capfd):
    def ask():
        until(lambda: len(notes(tmp_path)) == 2)
        os.kill(os.getpid(), number)

    asking = threading.Thread(target=ask)
    asking.start()
    outcomes = run_cells([cell(tmp_path, "saves", seed=seed) for seed in range(3)], jobs=2)
    asking.join()
    assert [outcome.status for outcome in outcomes] == ["interrupted"] * 3
    assert [outcome.text for outcome in outcomes][2] == "not started"
    assert sum("saved" in said for said in notes(tmp_path)) == 2
    assert told(outcomes) == 75
    assert "stopping: 2 cells" in capfd.readouterr().out
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


def test_a_cell_that_does_not_stop_is_killed_after_a_while_and_at_once_when_asked_twice(tmp_path, spied):
    asked = []
    for seed, (again, stop_seconds) in enumerate([(False, 1.0), (True, 60.0)]):

        def ask(seed=seed, again=again):
            until(lambda: any(said["seed"] == seed for said in notes(tmp_path)))
            asked.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)
            if again:
                until(lambda: any(launch.asked for launch in local._launches))  # two at once would be one
                os.kill(os.getpid(), signal.SIGTERM)

        asking = threading.Thread(target=ask)
        asking.start()
        (outcome,) = run_cells([cell(tmp_path, "hangs", seed=seed)], stop_seconds=stop_seconds)
        asking.join()
        assert outcome.status == "interrupted"
        assert time.monotonic() - asked[-1] < 40
    assert all(not alive(said["pid"]) for said in notes(tmp_path))


def test_a_handler_of_ones_own_stops_everything_and_returns_when_it_is_saved(tmp_path, spied):
    saved = []

    def handler(_number, _frame):
        stop_all(30)
        saved.append(sum("saved" in said for said in notes(tmp_path)))

    def ask():
        until(lambda: len(notes(tmp_path)) == 2)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        asking = threading.Thread(target=ask)
        asking.start()
        outcomes = run_cells([cell(tmp_path, "saves", seed=seed) for seed in range(3)], jobs=2, signals=False)
        asking.join()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert saved == [2]
    assert [outcome.status for outcome in outcomes] == ["interrupted"] * 3


LAUNCHER = """
import sys
from pathlib import Path
from spied_cells import cell, spied_child
from vlmbench.grid import processes
from vlmbench.grid.local import run_cells
if __name__ == "__main__":
    processes.run_child = spied_child
    output, does = Path(sys.argv[1]), sys.argv[2]
    stop_seconds = 2 if does == "hangs" else 60
    run_cells([cell(output, does, seed=seed) for seed in range(2)], jobs=2, stop_seconds=stop_seconds)
"""


def session(leader: int) -> list[int]:
    """Return the processes of a session that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == leader and words[0] != "Z":
            found.append(int(path.parent.name))
    return found


def launched(tmp_path: Path, does: str) -> subprocess.Popen:
    script = tmp_path / "launcher.py"
    script.write_text(LAUNCHER)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    ran = subprocess.Popen(
        [sys.executable, script, tmp_path, does], env={**os.environ, "PYTHONPATH": paths}, start_new_session=True
    )
    until(lambda: len(notes(tmp_path)) == 2)
    return ran


@pytest.mark.parametrize(("does", "saves"), [("saves", 2), ("hangs", 0)])
def test_no_process_outlives_a_launcher_that_is_killed(tmp_path, does, saves):
    ran = launched(tmp_path, does)
    assert len(session(ran.pid)) >= 4  # with the fork server
    os.kill(ran.pid, signal.SIGKILL)
    ran.wait()
    until(lambda: not session(ran.pid))
    assert sum("saved" in said for said in notes(tmp_path)) == saves


def test_no_cell_outlives_the_fork_server(tmp_path):
    ran = launched(tmp_path, "hangs")
    (server,) = {
        int(Path(f"/proc/{said['pid']}/stat").read_text().rpartition(")")[2].split()[1]) for said in notes(tmp_path)
    }
    assert server != ran.pid
    os.kill(server, signal.SIGKILL)
    assert ran.wait(180) == 0
    until(lambda: not session(ran.pid))


def test_a_signal_to_the_whole_group_lets_cells_save(tmp_path):
    ran = launched(tmp_path, "saves")
    os.killpg(ran.pid, signal.SIGTERM)  # as `timeout` does
    ran.wait(180)
    until(lambda: not session(ran.pid))
    assert sum("saved" in said for said in notes(tmp_path)) == 2


# Other launchers


def named(config: schema.CellConfig):
    return Namer().name(config).folder


def test_a_cell_that_another_process_holds_is_waited_for_and_then_run(tmp_path, spied, monkeypatch, capfd):
    monkeypatch.setattr(launch, "LOOK", 0.2)
    config = cell(tmp_path)

    def hold():
        with claim(named(config)):
            until(lambda: any("ended" in said for said in notes(tmp_path)))  # the other cell
            time.sleep(1)  # nothing but this one is left to wait for

    holding = threading.Thread(target=hold)
    holding.start()
    until(lambda: (named(config) / "cell.lock").exists())
    (left,) = run_cells([config], wait=False)
    assert (left.status, left.skipped) == ("running", True)
    assert told([left]) == 1
    assert [outcome.status for outcome in run_cells([config, cell(tmp_path, seed=1)])] == ["done", "done"]
    holding.join()
    out = capfd.readouterr().out
    assert "waiting for 1 cells that other processes are at work on" in out
    assert f"process {os.getpid()} on " in out
    assert [said["seed"] for said in notes(tmp_path) if "began" in said] == [1, 0]


def test_what_another_process_does_with_a_cell_meanwhile_is_taken_from_its_record(tmp_path, spied, monkeypatch):
    monkeypatch.setattr(launch, "LOOK", 0.2)
    config, mine = cell(tmp_path), cell(tmp_path, seed=1)
    folder = named(config)

    def hold():
        with claim(folder):
            until(lambda: any("ended" in said for said in notes(tmp_path)))
            error = {"type": "UserError", "message": "no such thing", "traceback": "", "mendable": True}
            write_record(folder, {"status": "failed", "error": error, "metrics": {}})

    holding = threading.Thread(target=hold)
    holding.start()
    until(lambda: (folder / "cell.lock").exists())
    outcomes = run_cells([config, mine])
    holding.join()
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "no such thing" in outcomes[0].text
    assert {said["seed"] for said in notes(tmp_path)} == {1}
    # Launched again, a failed cell is tried again.
    assert [outcome.status for outcome in run_cells([config])] == ["done"]


AGAIN = """
import sys
from multiprocessing import forkserver
from vlmbench.config.entry import run
from vlmbench.train import main
try:
    run(main)
finally:
    print("torch" in sys.modules, forkserver._forkserver._forkserver_pid)
"""


def test_finished_cells_are_counted_and_start_neither_torch_nor_a_process(tmp_path, command):
    small = ["trainer.max_epochs=1", "trainer.batch_size=8", "domain.patients=20", "task.resamples=100"]
    asked = ["-m", "finetune=lora", *small, f"output={tmp_path}"]
    status, _, err = command("train", *asked, "seed=0")
    assert status == 0, err
    (one,) = (path.parent for path in tmp_path.rglob("record.json"))
    record = json.loads((one / "record.json").read_text())
    seeds = range(22)
    for seed in seeds[1:]:
        config = cell_from_dict({**record["config"], "seed": seed})
        write_record(named(config), {**record, "config": dataclasses.asdict(config)})
    listed = ",".join(map(str, seeds))
    ran = subprocess.run(
        [sys.executable, "-c", AGAIN, *asked, f"seed={listed}"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == ["22 cells: 22 done already, 0 to run", "22 of 22 cells done.", "False None"]


def test_a_grid_that_was_stopped_early_does_not_list_each_cell(capfd):
    stopped = [Outcome(f"cell {number}", "interrupted", "not started") for number in range(30)]
    assert told([*stopped, Outcome("bad", "failed", "FAILED  x"), Outcome("good", "done")]) == 1
    assert capfd.readouterr().out.splitlines() == [
        "1 of 32 cells done, 31 not:",
        "  bad  FAILED  x  ",
        "  30 not started",
    ]
