"""Start and stop a real SLURM on this one machine, in a directory of its own; for tests and for trying launcher=slurm.

eval "$(python scripts/slurm/local_cluster.py start --dir /tmp/slurm --cpus 2 --gpus 2)"   # sets SLURM_CONF
sinfo
python scripts/slurm/local_cluster.py stop --dir /tmp/slurm

Needs root and Debian's packages slurm-wlm and munge, no systemd, no accounting. Nothing outside the directory is
written but munge's own in /run, and both are gone after `stop`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slurm.cluster import Cluster, ClusterError


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("start", "stop"))
    parser.add_argument("--dir", type=Path, required=True, help="directory of its own; `stop` removes it")
    parser.add_argument("--cpus", type=int, default=os.cpu_count(), help="CPUs to give away (those of the machine)")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs to hand out, without devices (0)")
    options = parser.parse_args()
    cluster = Cluster(options.dir, cpus=options.cpus, gpus=options.gpus)
    try:
        if options.command == "stop":
            cluster.stop()
        else:
            cluster.start()
            print(f"export SLURM_CONF={cluster.conf}")
    except ClusterError as error:
        print(f"local_cluster: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
