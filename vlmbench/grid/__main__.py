"""Plan a grid before it runs, see how far it is, and go on with what failed.

python -m vlmbench.grid plan sweep=demo           # how many cells, what they cost; runs nothing
python -m vlmbench.grid status sweep=demo output=runs/demo
"""

from __future__ import annotations

import sys

from vlmbench.config.entry import compose, run
from vlmbench.config.sweeping import Sweep
from vlmbench.errors import UserError

COMMANDS = ("plan", "status")


def main() -> int:
    """Run the command; returns the exit status."""
    words = sys.argv[1:]
    if not words or words[0] not in COMMANDS:
        raise UserError(f"say what to do: python -m vlmbench.grid {'|'.join(COMMANDS)} sweep=... .")
    command = words[0]
    sys.argv[1:] = ["-m", *words[1:]]
    statuses: list[int] = []

    def take(sweep: Sweep) -> None:
        from vlmbench.grid.cells import grid_of
        from vlmbench.grid.plan import counts, plan

        grid = grid_of(sweep)
        print(f"{command}: {len(grid.cells)} cells, {len(grid.impossible)} impossible: {counts(plan(grid))}")
        statuses.append(0)

    compose("train", __doc__ or "", sweep=take)
    return max(statuses, default=0)


if __name__ == "__main__":
    run(main)
