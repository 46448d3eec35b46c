"""What is known of a cell whose process died without a word: by what, of what, and the last it said."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

DIED = "ProcessDied"  # the type of such an error
LOG = "log.txt"
LINES, BYTES = 20, 8192  # of the log's end

# Somebody asked it to stop: that is no fault of the cell, which goes on when it is launched again.
ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def was_asked(exitcode: int) -> bool:
    """Return whether a process ended by a signal that asks it to."""
    return exitcode < 0 and -exitcode in ASKED


def describe_death(exitcode: int, folder: Path, pid: int = 0) -> dict[str, Any]:
    """Return the error of a record for a process that left none.

    Args:
        exitcode: Its exit status; negative is the signal that killed it.
        folder: The cell's directory, where its log is.
        pid: Its number, by which the kernel's log names it; 0 where it is not known.
    """
    said = last_lines(folder / LOG)
    return {
        "type": DIED,
        "message": cause(exitcode, kernel_log() if exitcode == -signal.SIGKILL and pid else "", pid),
        "traceback": f"The last lines of {LOG}:\n{said}" if said else f"It left no {LOG}.",
        "mendable": False,
    }


def cause(exitcode: int, kernel: str = "", pid: int = 0) -> str:
    """Return how a process died, with what to do about it.

    Args:
        exitcode: As of `describe_death`.
        kernel: The kernel's log as far as it may be read.
        pid: As of `describe_death`.
    """
    if exitcode >= 0:
        return f"the process ended with exit status {exitcode} and left no record."
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    if -exitcode != signal.SIGKILL:
        return f"the process was killed by {name}; launching again resumes the cell."
    mine = [line for line in kernel.splitlines() if f"Killed process {pid} " in line]
    if mine:
        return (
            f"the process was killed by {name}: out of memory. The kernel says: {mine[-1].strip()} "
            "Lower trainer.batch_size or run fewer cells at a time, and launch again to resume."
        )
    return (
        f"the process was killed by {name}: out of memory? `dmesg | grep -i 'killed process'` says whether the kernel "
        "did it; then lower trainer.batch_size or run fewer cells at a time. Launching again resumes the cell."
    )


def last_lines(path: Path) -> str:
    """Return the end of a log, empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    # A progress bar writes over itself; what stood there last is what a person saw.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return "\n".join(lines[-LINES - 1 :]).strip("\n")


def kernel_log() -> str:
    """Return what the kernel has said since the machine started, as far as this user may read it."""
    try:
        handle = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    messages = []
    try:
        while True:
            try:
                messages.append(os.read(handle, BYTES).decode("utf-8", errors="replace"))
            except BrokenPipeError:  # overwritten while it was read; the next one is there
                continue
            except OSError:  # no more
                return "\n".join(messages)
    finally:
        os.close(handle)
