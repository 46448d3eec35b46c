"""Who works in a cell's directory: a file that names the process and shows by its time that it lives.

Read without disturbing anybody. How one is taken: `vlmbench.records.claim`.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

BEAT_S = 15.0  # how often a holder touches its lease
LAPSE_S = 90.0  # six beats missed: a loaded machine or file server misses one or two
NEWBORN_S = 5.0  # between the creation of the file and what stands in it lie microseconds
# A lease is given back by an impossible time of change: that needs no room on a full disk, and nobody reads half of
# it. Some file systems know no 1970 and take their own first date, so anything before 2001 counts.
GIVEN_BACK = 1e9


@dataclass(frozen=True)
class Lease:
    """What a lease says.

    Attributes:
        token: Random; tells this lease from every other.
        pid: The process that holds it.
        start: When that process began, in the kernel's own count, so that a later process of the same number is
            not taken for it; empty where the system does not tell.
        host: Its host, for people.
        machine: Which kernel and which numbering of processes `pid` belongs to; host names repeat in containers.
        locked: Whether the file is locked as well; some file systems cannot.
        taken: When, in seconds since 1970 by the holder's clock.
    """

    token: str
    pid: int
    start: str
    host: str
    machine: str
    locked: bool
    taken: float

    def text(self) -> str:
        """Return it as it stands in the file."""
        return json.dumps(asdict(self)) + "\n"


@dataclass(frozen=True)
class Found:
    """A lease as it lies in a directory.

    Attributes:
        path: The file.
        lease: What stands in it; None where nothing whole does.
        touched: When the holder last touched it, by the file system's clock.
        inode: The file's number, which stands for a token where none can be read.
    """

    path: Path
    lease: Lease | None
    touched: float
    inode: int

    @property
    def token(self) -> str:
        """What tells this lease from others."""
        return self.lease.token if self.lease else f"inode{self.inode}"

    @property
    def holder(self) -> str:
        """The process and its host, for people."""
        return f"process {self.lease.pid} on {self.lease.host}" if self.lease else "an unknown process"


def own_lease(token: str, *, locked: bool) -> Lease:
    """Return a lease for this process."""
    seen = _stat(os.getpid())
    return Lease(token, os.getpid(), seen[1] if seen else "", socket.gethostname(), machine(), locked, time.time())


def find_lease(path: Path) -> Found | None:
    """Return the lease in a file, None where there is no file.

    The file is opened, not only looked at: network file systems ask the server when a file is opened and may answer
    from memory, for a minute, when it is not.
    """
    try:
        with path.open("rb") as file:
            status, text = os.fstat(file.fileno()), file.read()
    except FileNotFoundError:
        return None
    try:
        lease = _parsed(json.loads(text))
    except (ValueError, TypeError, KeyError):  # not written yet, or not ours
        lease = None
    return Found(path, lease, status.st_mtime, status.st_ino)


def _parsed(said: Any) -> Lease:
    words = {name: str(said[name]) for name in ("token", "start", "host", "machine")}
    if not words["token"].isalnum():  # it becomes part of a file's name
        raise ValueError("no token")
    return Lease(**words, pid=int(said["pid"]), locked=bool(said["locked"]), taken=float(said["taken"]))


def age(found: Found) -> float:
    """Return the seconds since the last sign of life: by the file system's own clock where the holder is elsewhere.

    That clock is read by making a file. Of a holder on this machine nothing depends on its age, and nothing is written.
    """
    here = found.lease is not None and found.lease.machine == machine()
    return max(0.0, (time.time() if here else file_system_now(found.path.parent)) - found.touched)


Verdict = Literal["held", "free"]


def judge(found: Found, lapse: float = LAPSE_S) -> Verdict:
    """Return whether a lease is still held, by what can be seen without touching it.

    On this machine the process itself decides: a stopped or overloaded one holds its lease however long it has not
    touched it. Elsewhere the time of the last touch does.
    """
    lease = found.lease
    if found.touched < GIVEN_BACK:
        return "free"
    if lease is None:
        return "held" if age(found) < NEWBORN_S else "free"
    if lease.machine == machine():
        return "held" if runs(lease.pid, lease.start) else "free"
    return "held" if age(found) < lapse else "free"


def runs(pid: int, start: str) -> bool:
    """Return whether a process of this machine is alive, and the one that began at `start` where that is known."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user, and there; /proc may hide it
        return True
    seen = _stat(pid)
    return seen is None or (seen[0] not in "ZXx" and start in ("", seen[1]))  # Z: dead, and not yet waited for


def _stat(pid: int) -> tuple[str, str] | None:
    """Return state and begin of a process, in ticks since the machine's (proc(5), fields 3 and 22 of stat).

    None where the system does not tell: off Linux.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    rest = stat.rpartition(")")[2].split()  # the second field is the name in parentheses, in which anything may stand
    return rest[0], rest[19]


def machine() -> str:
    """Return what two processes share that see each other under the same numbers: the kernel's boot and their space.

    A number of one container means another process in the next, and after a restart none.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def file_system_now(folder: Path) -> float:
    """Return the time by the clock that dates a directory's files; clocks of hosts differ."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".now.") as probe:
            os.utime(probe.fileno())
            return os.fstat(probe.fileno()).st_mtime
    except OSError:  # a directory that may only be read; our own clock is the best there is
        return time.time()
