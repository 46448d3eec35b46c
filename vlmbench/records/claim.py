"""One process at a time works in a cell's directory, on one machine and on a file system that several share.

A claim is a file `cell.lock` that says who holds it (`Lease`), that its holder has locked (`flock`) and touches every
15 seconds. It ends with the process, however that ends:

* of this machine it is free once its process is gone, or once nobody has it locked. A child that was forked inside a
  claim inherits the lock and may outlive its parent; the process counts, not the lock;
* of another machine it is free once it has not been touched for 90 seconds by the file system's clock. `flock` says
  nothing there: on some shared file systems it holds on one node only, on others there is none.

Who takes a file whose holder is gone must be one. A lease is never changed nor removed, it is succeeded: the right to
succeed the lease TOKEN is a file of its own, `.cell.lock.after-TOKEN`, created exclusively. Who created it looks
whether `cell.lock` still holds TOKEN, and if so renames its own file onto it: nobody else may replace TOKEN meanwhile,
and who comes later finds another token. The right is itself a lease, so that one whose holder dies in between is
succeeded in the same way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmbench.errors import UserError
from vlmbench.records.lease import BEAT_S, LAPSE_S, Found, Lease, find_lease, judge, machine, own_lease

LOCK = "cell.lock"


class ClaimedError(Exception):
    """Another process is at work in the directory; it is left alone."""


class LostClaimError(ClaimedError):
    """This process slept so long that another one has taken its place."""


class Claim:
    """A directory that is held.

    Args:
        path: The lease's file.
        lease: What stands in it.
        handle: Its open descriptor.
    """

    def __init__(self, path: Path, lease: Lease, handle: int) -> None:
        self.path = path
        self.lease = lease
        self._handle = handle
        self._lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lost(self) -> bool:
        """Whether another process has taken over, or the file is gone; looked up each time."""
        if not self._lost:
            try:
                found = find_lease(self.path)
            except OSError:  # the file server is away: no sign that anybody has taken over
                return False
            self._lost = found is None or found.token != self.lease.token
        return self._lost

    def check(self) -> None:
        """Stop who is no longer the holder; called before anything is written that others read.

        Raises:
            LostClaimError: Another process has taken over.
        """
        if self.lost:
            found = find_lease(self.path)
            taker = found.holder if found else "somebody who removed the file"
            raise LostClaimError(
                f"{self.path.parent} was taken over by {taker}: this process gave no sign of life for too long. "
                "It writes nothing more there."
            )

    def start(self, beat: float, on_lost: Callable[[], None] | None) -> None:
        """Touch the file every `beat` seconds in a thread; `on_lost` is called there once if another takes over."""

        def keep() -> None:
            while not self._stop.wait(beat):
                with contextlib.suppress(OSError):  # a file server that is away for a while; the next beat may do
                    os.utime(self._handle)
                if self.lost:
                    print(f"{self.path.parent} was taken over by another process", file=sys.stderr, flush=True)
                    if on_lost is not None:
                        on_lost()
                    return

        self._thread = threading.Thread(target=keep, name="claim", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the directory back; in a forked child nothing happens, it is not the holder."""
        if os.getpid() != self.lease.pid:
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        # By the descriptor, not the path: what another process put there is not ours to touch.
        with contextlib.suppress(OSError):  # then the dead process or the lapsed time frees it
            os.utime(self._handle, (0, 0))
        with contextlib.suppress(OSError):  # explicitly, for children that have inherited it
            fcntl.flock(self._handle, fcntl.LOCK_UN)
        os.close(self._handle)


@contextmanager
def claim(
    folder: Path, *, beat: float = BEAT_S, lapse: float = LAPSE_S, on_lost: Callable[[], None] | None = None
) -> Iterator[Claim]:
    """Hold a directory while the block runs.

    Args:
        folder: Made where it is missing.
        beat: Seconds between two signs of life.
        lapse: Seconds without one after which a lease of another machine is free; the same for all who share it.
        on_lost: Called in another thread if the claim is taken over.

    Raises:
        ClaimedError: Another process holds it; the message names the process and its host.
        UserError: The lease cannot be written.
    """
    make_folder(folder)
    held = _take(folder / LOCK, lapse)
    try:
        held.start(beat, on_lost)
        yield held
    finally:
        held.release()


def make_folder(folder: Path) -> None:
    """Make a cell's directory where it is missing.

    Raises:
        UserError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}. Set another output=.") from error


def _take(path: Path, lapse: float) -> Claim:
    """Return a new lease that lies at `path`, where nobody or nobody alive had one."""
    while True:
        made = _create(path)
        if made is not None:
            held = Claim(path, *made)
            if not held.lost:
                return held
            held.release()  # stalled so long while writing that another took the empty file for a dead one's
            continue
        found = find_lease(path)
        if found is None:
            continue
        if judge(found, lapse) == "held" and not _unlocked(found):
            raise ClaimedError(f"{path.parent} is running elsewhere ({found.holder}).")
        right = _take(path.with_name(f".{LOCK}.after-{found.token}"), lapse)
        current = find_lease(path)
        if current is not None and current.token == found.token:
            with contextlib.suppress(FileNotFoundError):  # stalled, and another has the right now: seen below
                right.path.replace(path)
        else:
            right.path.unlink(missing_ok=True)
        right.path = path
        if not right.lost:
            return right
        right.release()


def _create(path: Path) -> tuple[Lease, int] | None:
    """Create the file with a lease of this process, locked; None where the file is there already.

    The lock comes before the text: whoever reads the text finds the lock taken.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return None
    except FileNotFoundError:  # the directory was cleared away since it was made
        make_folder(path.parent)
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}. Make room there, or set another output=.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = True
    except OSError:  # a file system without: the lease alone counts
        locked = False
    lease = own_lease(secrets.token_hex(16), locked=locked)
    try:
        os.write(handle, lease.text().encode())
        os.fsync(handle)
    except OSError as error:
        path.unlink(missing_ok=True)
        os.close(handle)
        raise UserError(f"{path} cannot be written: {error.strerror}. Make room there and launch again.") from error
    return lease, handle


def _unlocked(found: Found) -> bool:
    """Return whether a lease of this machine was locked and is no more: its process lives and holds it no longer."""
    if found.lease is None or not found.lease.locked or found.lease.machine != machine():
        return False
    try:
        with found.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not see each other
            return os.fstat(file.fileno()).st_ino == found.inode
    except OSError:  # held
        return False
