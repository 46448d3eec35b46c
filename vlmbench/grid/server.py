"""What the fork server imports, and nothing else does: signals that are for the launcher or for cells pass it by.

A terminal, `timeout` and SLURM signal whole groups of processes. The fork server must outlive that, or its end would
take the cells with it before they have saved what they have. It ends when the launcher and every cell have.
"""

import importlib
import signal

#: Blocked, not ignored: what is sent to a new process before it is ready waits there until it unblocks them.
BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def prepare_server() -> None:
    """Block the signals, then import what every cell needs, which takes seconds."""
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    importlib.import_module("vlmbench.cell.preload")
