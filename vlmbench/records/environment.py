"""Where and with what a cell ran."""

from __future__ import annotations

import platform
import resource
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "vlmbench",
    "torch",
    "torchvision",
    "lightning",
    "transformers",
    "tokenizers",
    "open_clip_torch",
    "peft",
    "torchmetrics",
    "scikit-learn",
    "numpy",
    "pillow",
    "hydra-core",
    "omegaconf",
    "wandb",
)


def environment(*, device: str, precision: str, threads: int) -> dict[str, Any]:
    """Return interpreter, platform, package versions, git state of the code, host, device and threads.

    On a CPU the number of threads decides in which order sums are taken, and so the last digits of a result.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "git": git_state(Path(__file__).resolve().parent),
        "host": socket.gethostname(),
        "device": device,
        "precision": precision,
        "threads": threads,
    }


def git_state(folder: Path) -> dict[str, Any]:
    """Return commit and whether tracked files differ from it; both None where the code is not a checkout."""

    def git(*args: str) -> str | None:
        command = ["git", "-C", str(folder), *args]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603 - fixed words
        except (OSError, subprocess.SubprocessError):
            return None

    # An installed package may lie inside someone else's repository: ours is the one that tracks this very file.
    if not git("ls-files", "--error-unmatch", __file__):
        return {"commit": None, "dirty": None}
    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(status)}


def peak_host_bytes() -> int:
    """Return the largest resident set of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
