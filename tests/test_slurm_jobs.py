"""Jobs of SLURM without a SLURM: how cells are divided, what a requeued job does, and how the end is waited for."""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmbench.cell.naming import Name
from vlmbench.config import schema
from vlmbench.grid.follow import Watch
from vlmbench.grid.outcome import Outcome, read_told, write_told
from vlmbench.grid.pack import Pack, packs_of
from vlmbench.grid.queue import Job, SlurmError
from vlmbench.grid.submitted import Submitted, queued
from vlmbench.grid.waiting import Known, holder
from vlmbench.records.claim import LOCK
from vlmbench.records.lease import LAPSE_S, own_lease
from vlmbench.records.state import State


def cell(seed: int = 0, **trainer: object) -> schema.CellConfig:
    return schema.CellConfig(
        model=schema.ContrastiveModelConfig(name="tiny_clip"),
        task=schema.DiagnosisTaskConfig(),
        finetune=schema.LoraConfig(),
        domain=schema.PhantomDomainConfig(name="phantom"),
        trainer=schema.TrainerConfig(**trainer),  # type: ignore[arg-type]
        seed=seed,
    )


def seconds(config: schema.CellConfig) -> float:
    return 60.0 * config.seed


def sizes(configs: list[schema.CellConfig], **options: object) -> list[list[int]]:
    settings = {"cells_per_job": None, "pack_minutes": 10.0, "jobs": 1, "seconds": seconds, **options}
    packs = packs_of(configs, **settings)  # type: ignore[arg-type]
    assert sorted(index for pack in packs for index in pack) == list(range(len(configs)))
    return [sorted(configs[index].seed for index in pack) for pack in packs]


def test_small_cells_share_a_job_up_to_its_minutes():
    configs = [cell(seed) for seed in (3, 4, 20, 3, 4)]
    assert sorted(map(sum, sizes(configs))) == [7, 7, 20]
    assert sorted(map(sum, sizes(configs, jobs=2))) == [3, 11, 20]
    assert sorted(map(len, sizes(configs, cells_per_job=2))) == [1, 2, 2]
    assert sorted(map(len, sizes(configs, cells_per_job=2, seconds=None))) == [1, 2, 2]
    assert len(sizes(configs, pack_minutes=None)) == 5
    assert len(sizes(configs, seconds=None)) == 5


def test_a_cell_on_several_devices_has_a_job_to_itself():
    wide = cell(1, devices=2, strategy="ddp")
    assert sorted(map(len, sizes([cell(1), wide, cell(1), cell(1)], cells_per_job=4))) == [1, 3]


def waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list, told: list[Outcome]) -> Outcome:
    """Wait for a cell that has no name here, with a controller that answers so."""
    entry = Submitted("vlmbench-abc", 1, ("config-0",), str(tmp_path / "told.json"), str(tmp_path / "log.err"), "7_1")
    if told:
        write_told(Path(entry.told), told)

    def answer() -> dict[str, Job]:
        said = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr("vlmbench.grid.follow.my_jobs", answer)
    monkeypatch.setattr("vlmbench.grid.follow.FIRST", 0.01)
    monkeypatch.setattr("vlmbench.grid.follow.LATE", 0.02)
    outcomes: dict[int, Outcome] = {}
    Watch({0: Known(0, cell(), None)}, {0: entry}, outcomes, total=1).run()
    return outcomes[0]


def test_a_job_says_itself_how_cells_ended_that_have_no_name_here(monkeypatch, tmp_path):
    label = Known(0, cell(), None).label
    answers = [{"7_1": Job("vlmbench-abc", "RUNNING", "None")}, {"7_1": Job("vlmbench-abc", "COMPLETED", "None")}]
    told = [Outcome("another", "failed", "no"), Outcome(label, "done", "done  auroc 0.5")]
    assert waited(tmp_path, monkeypatch, answers, told) == told[1]


def test_a_controller_that_is_away_is_asked_again_and_slurms_reason_is_told(monkeypatch, tmp_path, capsys):
    gone = {"7_1": Job("vlmbench-abc", "NODE_FAIL", "NodeDown")}
    (tmp_path / "log.err").touch()
    outcome = waited(tmp_path, monkeypatch, [SlurmError("squeue fails: away."), SlurmError("away."), gone], [])
    assert outcome.status == "killed"
    assert f"job 7_1: NODE_FAIL (NodeDown); see {tmp_path}/log.err" in outcome.text
    assert capsys.readouterr().out.count("Asking again.") == 1


def test_another_clusters_job_of_the_same_number_is_not_ours(monkeypatch, tmp_path):
    outcome = waited(tmp_path, monkeypatch, [{"7_1": Job("another", "RUNNING", "None")}], [])
    assert outcome.text.startswith("KILLED  job 7_1: no longer known to SLURM, as after scancel. Run")  # and no log


def test_a_cell_that_another_process_leaves_is_submitted_then(command, tmp_path, monkeypatch):
    held, submitted = [State("running"), State("running"), None], list[int]()

    def holder(cell: Known) -> State | None:
        return held.pop(0) if len(held) > 1 else held[0]

    def submit(packs: list, *_: object) -> list:
        submitted.extend(cell.index for pack in packs for cell in pack)
        raise SlurmError("as far as this test goes.")

    for module in ("slurm", "follow"):
        monkeypatch.setattr(f"vlmbench.grid.{module}.holder", holder)
    monkeypatch.setattr("vlmbench.grid.slurm.check", lambda partition: None)
    monkeypatch.setattr("vlmbench.grid.slurm.submit", submit)
    monkeypatch.setattr("vlmbench.grid.follow.FIRST", 0.01)
    for module in ("submitted", "follow"):
        monkeypatch.setattr(f"vlmbench.grid.{module}.my_jobs", dict)
    status, out, _ = command("train", "-m", "launcher=slurm", "finetune=lora", f"output={tmp_path}")
    assert status == 2
    assert "0 to submit, 1 at work elsewhere\n1 cells: 0 done already, 0 submitted before, 1 to submit\n" in out
    assert submitted == [0]


def test_a_requeued_job_outlives_the_lease_of_the_node_that_it_was_lost_with(monkeypatch, tmp_path):
    known = Known(0, cell(), Name("identity", tmp_path, "data", "weights"))
    lease = tmp_path / LOCK
    lease.write_text(dataclasses.replace(own_lease("abc", locked=True), machine="of the lost node").text())
    touched = time.time() - LAPSE_S + 3
    os.utime(lease, (touched, touched))
    assert holder(known) is not None
    monkeypatch.setattr("vlmbench.grid.pack.LOOK", 0.1)
    monkeypatch.setattr("vlmbench.grid.pack.look_up", lambda configs: ([known], {}))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    in_process(monkeypatch, lambda self: [Outcome("a cell", "failed" if holder(known) else "done")])
    Pack([known.config], str(tmp_path / "told.json"))()
    assert [outcome.status for outcome in read_told(tmp_path / "told.json")] == ["done"]


def in_process(monkeypatch: pytest.MonkeyPatch, run: Callable[[Pack], list[Outcome]]) -> None:
    """Let a job do something else than to run cells, without a fork server."""
    monkeypatch.setattr("vlmbench.grid.pack._start_server", lambda: None)
    monkeypatch.setattr("vlmbench.grid.pack.signal.signal", lambda number, handler: None)
    monkeypatch.setattr(Pack, "_run", run)


def test_a_job_says_nothing_of_what_became_of_it_before_it_was_requeued(monkeypatch, tmp_path):
    told = tmp_path / "told.json"
    write_told(told, [Outcome("a cell", "interrupted")])
    in_process(monkeypatch, lambda self: sys.exit("killed"))
    with pytest.raises(SystemExit):
        Pack([cell()], str(told))()
    assert not told.exists()


def test_a_job_that_is_stopped_before_it_begins_begins_nothing(monkeypatch):
    monkeypatch.setattr("vlmbench.grid.pack.run_cells", lambda *_, **__: [])
    pack = Pack([cell()], "")
    pack._stop(signal.SIGTERM, None)
    assert [outcome.status for outcome in pack._run()] == ["interrupted"]


@pytest.mark.parametrize(("task", "recorded"), [("0", [(-9, 1)]), ("1", [])])
def test_a_killed_rank_zero_leaves_a_record(monkeypatch, task, recorded):
    class Killed:
        code, sentinels = -9, ()

        def over(self) -> bool:
            return True

        def outcome(self) -> Outcome:
            return Outcome("a cell", "killed")

    wrote: list[tuple[int, int]] = []
    monkeypatch.setenv("SLURM_PROCID", task)
    monkeypatch.setattr("vlmbench.grid.pack.start", lambda *_: Killed())
    monkeypatch.setattr("vlmbench.grid.pack.record_death", lambda config, code, _: wrote.append((code, config.seed)))
    assert Pack([cell(1, devices=2, strategy="ddp")], "")._run()[0].status == "killed"
    assert wrote == recorded


def test_a_launcher_that_is_killed_while_it_submits_leaves_jobs_that_are_known(tmp_path, monkeypatch):
    def told(name: str, place: int) -> Submitted:
        return Submitted(name, place, (f"cell {name} {place}",), "told.json", f"{tmp_path}/%j/%j_0_log.err")

    jobs = {"7_0": Job("a", "RUNNING", "None"), "7_1": Job("a", "PENDING", "None"), "8": Job("b", "FAILED", "None")}
    monkeypatch.setattr("vlmbench.grid.submitted.my_jobs", lambda: jobs)
    with queued(tmp_path) as queue:
        queue.add([told("a", 0), told("a", 1), told("b", 0), told("never submitted", 0)])
        assert not any(one.job for one in queue.entries)  # before sbatch says a number
    with queued(tmp_path) as queue:
        assert [(one.job, one.keys) for one in queue.entries] == [("7_0", ("cell a 0",)), ("7_1", ("cell a 1",))]
        assert queue.entries[1].stderr == f"{tmp_path}/7_1/7_1_0_log.err"
