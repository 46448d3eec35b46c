"""A real SLURM of one node on this machine, in a directory of its own: configured, started, asked, killed, stopped."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo")
USER = "munge"
TEMPLATE = Path(__file__).with_name("slurm.conf.in")


class ClusterError(Exception):
    """SLURM cannot be started or stopped here; the message says why and what to do."""


def missing() -> str:
    """Return why no SLURM can be started on this machine, in words; empty where it can."""
    if absent := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"not installed: {', '.join(absent)}; apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "SLURM's daemons are started by root alone, and this is not root"


class Cluster:
    """A SLURM of one node.

    Args:
        folder: A directory of its own.
        cpus: What the node has to give away; more than the machine has is allowed.
        gpus: To be asked for and handed out, without being there.
    """

    def __init__(self, folder: Path, *, cpus: int = 2, gpus: int = 0) -> None:
        self.folder, self.cpus, self.gpus = folder.resolve(), cpus, gpus
        self.conf = self.folder / "slurm.conf"
        # munge wants a path that others cannot write to, and a socket's path has 107 characters at most.
        self.munge = Path("/run") / f"munge-{hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of commands that mean this cluster."""
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def running(self) -> bool:
        """Return whether the node is up and takes jobs."""
        if not all(self._pid(program) for program in ("munged", "slurmctld", "slurmd")):
            return False
        # Idle is said before the node has registered, too; its boot time is known after.
        up = self._state() in {"idle", "mixed", "allocated", "completing"}
        return up and "BootTime=None" not in self._run("scontrol", "show", "node")

    def start(self) -> None:
        """Start the daemons; nothing happens where they run.

        Raises:
            ClusterError: A package, a permission, or the daemons' own reason.
        """
        if reason := missing():
            raise ClusterError(f"no SLURM can be started here: {reason}.")
        if self.running():
            if self._node() not in self.conf.read_text(encoding="utf-8"):
                raise ClusterError(f"{self.folder} runs with other CPUs or GPUs; stop it first.")
            return
        if self.folder.exists() and any(self.folder.iterdir()) and not self.conf.exists():
            raise ClusterError(f"{self.folder} holds other files; give --dir a directory of its own.")
        self.stop()
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True, mode=0o755)
        self._configure()
        try:
            self._start_munge()
            self._daemon("slurmctld", "-f", str(self.conf))
            self._daemon("slurmd", "-f", str(self.conf))
            _until(self.running, 120, lambda: f"the node does not come up (state {self._state()!r}).\n{self._logs()}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every job and daemon and remove the directory; nothing happens where there is none."""
        # No job is started once the controller is gone, and slurmd waits at its end for those that run.
        self._end_daemon("slurmctld")
        self.kill("SLURM_JOB_ID")
        self._end_daemon("slurmd")
        self._end_daemon("munged")
        shutil.rmtree(self.munge, ignore_errors=True)
        if self.conf.exists():
            shutil.rmtree(self.folder)

    def _node(self) -> str:
        """Return the line of slurm.conf that says what the node has."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 * 9 // 10
        has = f"CPUs={self.cpus} RealMemory={memory} Gres=gpu:{self.gpus}"
        return f"NodeName={socket.gethostname()} NodeAddr=127.0.0.1 {has} State=UNKNOWN"

    def _end_daemon(self, program: str) -> None:
        if pid := self._pid(program):
            _end(pid)

    def _configure(self) -> None:
        host = socket.gethostname()
        text = TEMPLATE.read_text(encoding="utf-8").format(
            host=host, ports=_free_ports(2), dir=self.folder, munge=self.munge, node=self._node()
        )
        self.conf.write_text(text, encoding="utf-8")
        # SLURM 22.05 drops GPUs without a device file, whatever is counted; it never opens these under task/none.
        devices = [self.folder / f"gpu{index}" for index in range(self.gpus)]
        for device in devices:
            device.touch()
        lines = [f"NodeName={host} Name=gpu File={device}" for device in devices]
        (self.folder / "gres.conf").write_text("\n".join([*lines, ""]), encoding="utf-8")
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n", encoding="utf-8")

    def _start_munge(self) -> None:
        shutil.rmtree(self.munge, ignore_errors=True)
        self.munge.mkdir(mode=0o755)
        key = self.munge / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        for path in (self.munge, key):
            shutil.chown(path, USER, USER)
        files = [f"--{name}-file={self.munge / name}" for name in ("key", "log", "pid", "seed")]
        self._daemon("munged", f"--socket={self.munge / 'socket'}", *files, user=USER)

    def _daemon(self, program: str, *arguments: str, user: str | None = None) -> None:
        # A daemon must not keep the pipe of whoever waits for the end of what this process prints.
        with (self.folder / f"{program}.out").open("w", encoding="utf-8") as out:
            ended = subprocess.run(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                env=self.environment,
                cwd="/",
            )
        if ended.returncode:
            raise ClusterError(f"{program} does not start (exit status {ended.returncode}).\n{self._logs()}")
        _until(lambda: bool(self._pid(program)), 60, lambda: f"{program} ended at once.\n{self._logs()}")

    def _run(self, *words: str) -> str:
        try:
            ended = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=20, check=False)
        except subprocess.TimeoutExpired:
            return ""
        return ended.stdout.strip()

    def _state(self) -> str:
        return self._run("sinfo", "--noheader", "--partition=main", "--format=%T").rstrip("*~#!%$@^-")

    def _pid(self, program: str) -> int:
        """Return a daemon's process, 0 where it does not run; another that got its number does not count."""
        path = self.munge / "pid" if program == "munged" else self.folder / f"{program}.pid"
        mark = f"--socket={self.munge}/socket" if program == "munged" else str(self.conf)
        try:
            pid = int(path.read_text(encoding="utf-8"))
            words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
        except (OSError, ValueError):
            return 0
        return pid if mark in words else 0

    def kill(self, variable: str) -> None:
        """Kill the processes of this cluster's jobs by SIGKILL, as the kernel does where memory runs out.

        Args:
            variable: Those that have it: SLURM_STEP_ID for the tasks alone, SLURM_JOB_ID for scripts and srun as well,
                and then for the processes of SLURM that watch over them.
        """
        conf, found = os.fsencode(f"SLURM_CONF={self.conf}"), []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                words = (path / "environ").read_bytes().split(b"\0")
                stepd = variable == "SLURM_JOB_ID" and b"slurmstepd" in (path / "cmdline").read_bytes()
                if conf in words and (stepd or any(word.startswith(f"{variable}=".encode()) for word in words)):
                    found.append(int(path.name))
        for pid in found:
            if pid != os.getpid():
                _end(pid, signal.SIGKILL)

    def _logs(self) -> str:
        """Return the ends of the daemons' logs."""
        paths = [*sorted(self.folder.glob("*.out")), *sorted(self.folder.glob("*.log")), self.munge / "log"]
        kept = [
            f"{path.name}: {line}"
            for path in paths
            if path.exists()
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        ]
        return "\n".join(kept)


@contextlib.contextmanager
def running(folder: Path, *, cpus: int = 2, gpus: int = 0) -> Iterator[Cluster]:
    """Let a SLURM run while the block does.

    Raises:
        ClusterError: It cannot be started.
    """
    cluster = Cluster(folder, cpus=cpus, gpus=gpus)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _until(true: Callable[[], bool], seconds: float, fault: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise ClusterError(fault())
        time.sleep(0.2)


def _end(pid: int, how: signal.Signals = signal.SIGTERM) -> None:
    """End a process and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)
        end = time.monotonic() + 10
        while _state_of(pid) != "Z":
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
