"""The processes of one cell together: rank 0 decides, the others follow, and none waits for one that has failed.

They talk over a TCP store of torch that rank 0 holds, beside the process group in which tensors go. A process that
waits in that group for another one cannot be told anything, and on GPUs it cannot even be interrupted: a thread beside
it watches the store, and ends the process where it is still there some seconds after another has failed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from vlmbench.cell import stopping
from vlmbench.cell.ranks import FAREWELL, GRACE, Rank, RankError
from vlmbench.cell.stopping import EXIT_STATUS, Interrupted
from vlmbench.records.claim import ClaimedError

JOIN = timedelta(minutes=10)  # nodes of a cluster may read torch from a slow disk
BEAT, LOOK = 0.5, 0.1  # seconds between two looks at the store: of the watch, and of who waits for rank 0
GO, END = "go", "end"
STOPPED = "Interrupted"  # in place of the type of an error: a rank was asked to stop


class Crew:
    """What a process of a cell knows of the others.

    Args:
        rank: Which of them it is.
        store: Torch's store, None for a cell of one process.
        gpus: Whether tensors go by NCCL.
    """

    def __init__(self, rank: Rank, store: Any = None, *, gpus: bool = False) -> None:
        self.rank = rank
        self._store = store
        self._gpus = gpus
        self._failed = False

    def go(self, identity: str) -> None:
        """As rank 0: let the others begin with the cell of this identity."""
        if self._store is not None:
            self._decide(GO, identity)

    def stand_down(self, reason: str) -> None:
        """As rank 0: send the others home, because another launcher has the cell."""
        if self._store is not None:
            self._decide("claimed", reason)

    def publish(self, record: dict[str, Any]) -> None:
        """As rank 0: tell the others how the cell ended."""
        if self._store is not None:
            self._decide(END, "")  # they may not have begun
            self._store.set("record", json.dumps(record))

    def begins(self, identity: str) -> bool:
        """As another rank: wait for rank 0's decision; return whether there is work to do.

        Raises:
            ClaimedError: Another launcher has the cell.
            RankError: Rank 0 works on another cell: settings, data or weights differ between the two.
        """
        # Not in one wait of the store, in which this process would be deaf to signals.
        while not self._store.check(["verdict"]):
            if self._store.check(["failed"]):
                return False  # `record` says how the cell ended
            time.sleep(LOOK)
        verdict, said = json.loads(self._store.get("verdict"))
        if verdict == "claimed":
            raise ClaimedError(said)
        if verdict == GO and said != identity:
            raise RankError(
                f"This process works on another cell ({identity[:10]}) than rank 0 ({said[:10]}). Data or weights "
                "differ between the nodes, or the ranks were started with different settings."
            )
        return bool(verdict == GO)

    def record(self) -> dict[str, Any] | None:
        """As another rank: wait for the record; None where rank 0 ended without one.

        Raises:
            Interrupted: A rank was asked to stop.
        """
        deadline = float("inf")
        try:
            while not self._store.check(["record"]):
                if deadline == float("inf") and self._store.check(["failed"]):
                    _first(self._store.get("failed"))
                    deadline = time.monotonic() + FAREWELL
                if time.monotonic() >= deadline:
                    return None  # rank 0 is stuck
                time.sleep(LOOK)
            return dict(json.loads(self._store.get("record")))
        except RuntimeError:  # of torch.distributed: rank 0 is gone
            return None

    def fail(self, error: dict[str, Any]) -> dict[str, Any]:
        """Tell the others of an error; return the first one of all ranks: the others' are what came of it.

        Args:
            error: As `vlmbench.cell.faults.describe` gives it.

        Raises:
            Interrupted: A rank was asked to stop before.
        """
        if self._store is None:
            return error
        self._failed = True
        if "by peer" in error["message"]:  # gloo's words
            died = "another process of the cell ended without a word; the kernel kills one where memory runs out"
            error = {**error, "message": f"{died}. {error['message']}"}
        if not self.rank.is_zero:
            error = {**error, "message": f"{self.rank}: {error['message']}"}
        try:
            first = self._store.compare_set("failed", "", json.dumps(error))
        except RuntimeError:  # rank 0 is gone and nobody is left to be told
            return error
        if not self.rank.is_zero:
            self._leave_group()  # who waits for this process in it finds out at once
        return _first(first)

    @contextmanager
    def watched(self, stuck: Callable[[dict[str, Any]], object]) -> Iterator[None]:
        """End this process where it is still in the block some seconds after another rank has failed or rank 0 is gone.

        Where another was asked to stop, this one is as well.

        Args:
            stuck: What is to be done before, with the other's error.
        """
        if self._store is None:
            yield
            return
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(over, stuck), name="ranks-watch", daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()

    def _watch(self, over: threading.Event, stuck: Callable[[dict[str, Any]], object]) -> None:
        failed: dict[str, Any] = {"type": "RankError", "message": "rank 0 is gone", "traceback": "", "mendable": False}
        try:
            store = meeting_store(self.rank)  # of its own: the main thread may be waiting in the other
            while not store.check(["failed"]):
                if over.wait(BEAT):
                    return
            failed = json.loads(store.get("failed"))
        except RuntimeError:
            pass
        stopped = failed["type"] == STOPPED
        if stopped and not stopping.asked():  # a second signal would be taken for impatience
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        if over.wait(GRACE):
            return
        try:
            if not stopped:
                stuck(failed)
        finally:
            print(f"{self.rank} ends: {failed['message'].splitlines()[0]}", file=sys.stderr, flush=True)
            os._exit(EXIT_STATUS if stopped else 1)

    def stop(self, stop: Interrupted) -> None:
        """Tell the others that this process was asked to stop, and does."""
        self._failed = True
        error = {"type": STOPPED, "message": stop.reason, "traceback": "", "mendable": False}
        try:
            self._store.compare_set("failed", "", json.dumps(error))
        except RuntimeError:  # rank 0 is gone and nobody is left to be told
            return

    def _decide(self, *verdict: str) -> None:
        self._store.compare_set("verdict", "", json.dumps(verdict))

    def join(self) -> None:
        """Wait until every process of the cell is there.

        Raises:
            RankError: Some did not come.
        """
        self._store.set(f"here/{self.rank.rank}", "")
        everybody = {f"here/{rank}": rank for rank in range(self.rank.world)}
        try:
            self._store.wait(list(everybody), JOIN)
        except RuntimeError as error:
            absent = [rank for key, rank in everybody.items() if not self._store.check([key])]
            raise RankError(
                f"Of {self.rank.world} processes of the cell these did not come in {JOIN}: {absent}. What they printed "
                "says why; all must be started with the same command."
            ) from error

    def leave(self) -> None:
        """Part in order: rank 0 holds the store, so it goes last."""
        self._leave_group()
        try:
            self._store.set(f"left/{self.rank.rank}", "")
            if self.rank.is_zero:
                self._store.wait([f"left/{rank}" for rank in range(self.rank.world)], timedelta(seconds=GRACE))
        except RuntimeError:  # somebody was killed: there is nobody to wait for
            return

    def _leave_group(self) -> None:
        from torch import distributed

        # NCCL would wait for what is under way, which after a failure nobody ends; the process ends soon.
        if distributed.is_initialized() and not (self._failed and self._gpus):
            distributed.destroy_process_group()


def _first(told: bytes) -> dict[str, Any]:
    """Return the first error of all ranks.

    Raises:
        Interrupted: It is none: a rank was asked to stop.
    """
    error = dict(json.loads(told))
    if error["type"] == STOPPED:
        raise Interrupted(error["message"])
    return error


def meeting_store(rank: Rank, *, server: bool = False) -> Any:
    """Return the store at which the processes of a cell meet; rank 0 serves it.

    Raises:
        RankError: Nobody has said where.
    """
    from torch.distributed import TCPStore

    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if rank.slurm and not (address and port):
        from lightning.pytorch.plugins.environments import SLURMEnvironment

        environment = SLURMEnvironment(auto_requeue=False)
        address, port = environment.main_address, str(environment.main_port)
    if not (address and port):
        raise RankError("MASTER_ADDR and MASTER_PORT are not set: the ranks of a cell need them to find rank 0.")
    return TCPStore(address, int(port), None, server, timeout=JOIN, wait_for_workers=False)
