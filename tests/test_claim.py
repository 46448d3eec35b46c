"""Who may work in a cell's directory: one, whatever dies, sleeps or starts at the same moment."""

import contextlib
import dataclasses
import errno
import fcntl
import functools
import json
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from vlmbench.errors import UserError
from vlmbench.records import claim as claims
from vlmbench.records import lease as leases
from vlmbench.records.claim import LOCK, ClaimedError, LostClaimError, claim
from vlmbench.records.lease import BEAT_S, LAPSE_S, Found, find_lease, judge, own_lease

FORK = multiprocessing.get_context("fork")


def put_lease(folder: Path, *, old: float = 0.0, token: str = "old", **changes) -> Path:
    """Write a lease as another process would have left it, last touched `old` seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    path.write_text(dataclasses.replace(own_lease(token, locked=True), **changes).text())
    then = time.time() - old
    os.utime(path, (then, then))
    return path


def lying(folder: Path) -> Found:
    found = find_lease(folder / LOCK)
    assert found is not None
    return found


def foreign(folder: Path, **more) -> Path:
    return put_lease(folder, host="node7", machine="another", pid=1, **more)


def hold(folder, pipe):
    with claim(folder):
        pipe.send("held")
        pipe.recv()


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path`."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert ours.recv() == "held"
    yield process
    ours.send("enough")
    process.join(180)


def test_a_held_directory_is_refused_and_its_holder_named(holder, tmp_path):
    with pytest.raises(ClaimedError, match=f"process {holder.pid} on {socket.gethostname()}"), claim(tmp_path):
        pytest.fail("both hold it")


def test_a_killed_holder_frees_it_at_once_even_before_it_is_waited_for(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table of processes
    assert judge(lying(tmp_path)) == "free"
    with claim(tmp_path) as held:
        assert held.lease.pid == os.getpid()


def test_a_stopped_holder_of_this_machine_keeps_it_however_long(holder, tmp_path):
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        os.utime(tmp_path / LOCK, (time.time() - 9999, time.time() - 9999))
        with pytest.raises(ClaimedError), claim(tmp_path):
            pytest.fail("both hold it")
    finally:
        os.kill(holder.pid, signal.SIGCONT)


def hold_with_worker(folder, workers):
    with claim(folder):
        worker = os.fork()
        if worker == 0:
            time.sleep(600)
            os._exit(0)
        workers.put(worker)
        time.sleep(600)


def test_a_worker_that_outlives_its_killed_parent_does_not_keep_the_cell(tmp_path):
    workers = FORK.SimpleQueue()
    parent = FORK.Process(target=hold_with_worker, args=(tmp_path, workers))
    parent.start()
    worker = workers.get()
    try:
        parent.kill()
        parent.join()
        with (tmp_path / LOCK).open("rb") as file, pytest.raises(BlockingIOError):  # the worker still has it locked
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with claim(tmp_path) as held:
            assert not held.lost
    finally:
        os.kill(worker, signal.SIGKILL)


class InChildError(Exception):
    pass


def test_a_forked_child_that_leaves_the_block_gives_nothing_back(tmp_path):
    try:
        with claim(tmp_path):
            pid = os.fork()
            if pid == 0:
                raise InChildError
            os.waitpid(pid, 0)
            with pytest.raises(ClaimedError), claim(tmp_path):
                pytest.fail("both hold it")
    except InChildError:
        os._exit(0)


def test_leaving_the_block_frees_it_though_a_child_lives_on(tmp_path):
    with claim(tmp_path):
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
            os._exit(0)
    try:
        with claim(tmp_path) as held:
            assert not held.lost
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def contend(folder, rounds, barrier, wins):
    for number in range(rounds):
        barrier.wait(180)
        with contextlib.suppress(ClaimedError), claim(folder / str(number)) as held:
            wins.put((number, os.getpid()))
            barrier.wait(180)  # held until all have tried
            assert not held.lost
            continue
        barrier.wait(180)


@pytest.mark.parametrize("left", ["nothing", "dead here", "lapsed elsewhere", "given back", "dead successor"])
def test_of_several_who_take_it_at_once_one_wins(tmp_path, left):
    rounds, takers = 50, 3
    for number in range(rounds):
        folder = tmp_path / str(number)
        if left in ("dead here", "dead successor"):
            put_lease(folder, pid=2**22 + 1)
        if left == "dead successor":
            successor = put_lease(folder / "x", pid=2**22 + 1, token="next")
            successor.rename(folder / f".{LOCK}.after-old")
        if left == "lapsed elsewhere":
            foreign(folder, old=LAPSE_S + 5)
        if left == "given back":
            os.utime(foreign(folder), (0, 0))
    barrier, wins = FORK.Barrier(takers), FORK.Queue()
    processes = [FORK.Process(target=contend, args=(tmp_path, rounds, barrier, wins)) for _ in range(takers)]
    for process in processes:
        process.start()
    won = [wins.get(timeout=180)[0] for _ in range(rounds)]
    for process in processes:
        process.join(180)
    assert [process.exitcode for process in processes] == [0] * takers
    assert wins.empty()
    assert sorted(won) == list(range(rounds))
    assert not list(tmp_path.glob(f"*/.{LOCK}.*"))


def test_who_comes_late_to_a_succession_finds_it_done(tmp_path, monkeypatch):
    foreign(tmp_path, old=LAPSE_S + 5)
    create, others = claims._create, contextlib.ExitStack()

    def first_let_another_succeed(path):
        if path.name.startswith(f".{LOCK}.after-"):
            monkeypatch.setattr(claims, "_create", create)
            others.enter_context(claim(tmp_path))  # between our look at the old lease and our right to succeed it
        return create(path)

    monkeypatch.setattr(claims, "_create", first_let_another_succeed)
    with others:
        with pytest.raises(ClaimedError, match="running elsewhere"), claim(tmp_path):
            pytest.fail("both hold it")
        assert not list(tmp_path.glob(f".{LOCK}.*"))


def test_another_machines_lease_counts_though_its_file_is_not_locked(tmp_path):
    path = foreign(tmp_path, old=LAPSE_S - 20)
    with pytest.raises(ClaimedError, match="process 1 on node7"), claim(tmp_path):
        pytest.fail("both hold it")
    os.utime(path, (time.time() - LAPSE_S - 5,) * 2)
    with claim(tmp_path) as held:
        assert lying(tmp_path).token == held.lease.token
    assert LAPSE_S >= 4 * BEAT_S


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_the_file_systems_clock_decides_and_not_ours(tmp_path, monkeypatch, skew):
    foreign(tmp_path / "live", old=5)
    foreign(tmp_path / "lapsed", old=LAPSE_S + 5)
    now = time.time
    monkeypatch.setattr(leases.time, "time", lambda: now() + skew)
    with pytest.raises(ClaimedError), claim(tmp_path / "live"):
        pytest.fail("both hold it")
    with claim(tmp_path / "lapsed") as held:
        assert not held.lost


def test_a_later_process_of_the_same_number_is_not_the_holder(tmp_path):
    put_lease(tmp_path / "reused", start="1", locked=False)
    with claim(tmp_path / "reused") as held:
        assert not held.lost
    put_lease(tmp_path / "same", locked=False)
    with pytest.raises(ClaimedError), claim(tmp_path / "same"):
        pytest.fail("both hold it")


def test_a_lease_of_this_machine_that_nobody_has_locked_is_free(tmp_path):
    put_lease(tmp_path)  # of a process that lives: this one
    with claim(tmp_path) as held:
        assert not held.lost


def test_a_file_without_text_is_a_lease_that_is_being_written(tmp_path):
    path = tmp_path / LOCK
    path.touch()
    with pytest.raises(ClaimedError, match="unknown process"), claim(tmp_path):
        pytest.fail("both hold it")
    os.utime(path, (time.time() - 30,) * 2)
    with claim(tmp_path) as held:
        assert lying(tmp_path).token == held.lease.token


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_the_lease_alone_counts(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(claims.fcntl, "flock", refuse)
    with claim(tmp_path) as held:
        assert held.lease.locked is False
        with pytest.raises(ClaimedError), claim(tmp_path):
            pytest.fail("both hold it")
    with claim(tmp_path) as again:
        assert again.lease.token != held.lease.token


def test_a_holder_gives_signs_of_life(tmp_path):
    with claim(tmp_path, beat=0.05):
        os.utime(tmp_path / LOCK, (time.time() - 1000,) * 2)
        deadline = time.monotonic() + 60
        while (tmp_path / LOCK).stat().st_mtime < time.time() - 500:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_who_was_taken_over_notices_and_touches_nothing_of_the_others(tmp_path):
    told = multiprocessing.Event()
    with claim(tmp_path, beat=0.05, on_lost=told.set) as held:
        held.check()
        other = foreign(tmp_path / "other", old=10)
        other.rename(tmp_path / LOCK)
        assert told.wait(60)
        assert held.lost
        with pytest.raises(LostClaimError, match="taken over by process 1 on node7"):
            held.check()
        before = (tmp_path / LOCK).stat().st_mtime
    found = lying(tmp_path)
    assert (found.token, found.touched) == ("old", before)


def test_a_lease_is_noticed_as_lost_before_the_next_beat(tmp_path):
    with claim(tmp_path, beat=3600) as held:
        foreign(tmp_path / "other").rename(tmp_path / LOCK)
        assert held.lost


def steal(folder):
    foreign(folder / "other").rename(folder / LOCK)


def test_a_cell_that_was_taken_over_writes_no_record(train, monkeypatch):
    import vlmbench.cell.work

    def slept(_config, _domain, _weights, folder, *_):
        steal(folder)
        return {"metrics": {}, "cost": {"seconds": {}}}

    monkeypatch.setattr(vlmbench.cell.work, "work", slept)
    ran = train("finetune=zero_shot")
    assert ran.status == 3
    assert "taken over by process 1 on node7" in ran.err
    assert not ran.cells


def test_a_cell_that_was_taken_over_stops_in_the_middle_and_records_no_failure(train, monkeypatch):
    import vlmbench.cell.run
    import vlmbench.cell.work

    slept = []

    def long(_config, _domain, _weights, folder, *_):
        steal(folder)
        begun = time.monotonic()
        try:
            time.sleep(60)
        finally:
            slept.append(time.monotonic() - begun)
        raise RuntimeError("was not stopped")

    monkeypatch.setattr(vlmbench.cell.work, "work", long)
    monkeypatch.setattr(vlmbench.cell.run, "claim", functools.partial(claim, beat=0.05))
    ran = train("finetune=zero_shot")
    assert (ran.status, ran.cells) == (3, [])
    assert slept[0] < 50


def test_a_directory_that_cannot_be_made_is_told_with_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/cell cannot be made: Not a directory"), claim(tmp_path / "file" / "cell"):
        pass


def test_what_stands_in_a_lease_is_for_people_too(tmp_path):
    with claim(tmp_path):
        said = json.loads((tmp_path / LOCK).read_text())
    assert said["pid"] == os.getpid()
    assert said["host"] == socket.gethostname()
    assert abs(said["taken"] - time.time()) < 60
