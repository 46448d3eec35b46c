"""Plan a grid before it runs, see how far it is, and go on with what failed.

python -m vlmbench.grid plan sweep=demo                     # how many cells, what they cost; runs nothing
python -m vlmbench.grid plan model=clip,siglip finetune=lora,linear_probe domain=chexpert --device h100
python -m vlmbench.grid plan sweep=demo --cells | grep lora # every cell: state, time, directory, command
python -m vlmbench.grid status sweep=demo                   # models and methods by domains; --cells names each cell
python -m vlmbench.grid watch sweep=demo                    # the same live; --once for scripts
python -m vlmbench.grid retry sweep=demo hydra.launcher.jobs=2   # launch the failed cells again, and no others
python -m vlmbench.grid clean sweep=demo                    # what failed and interrupted cells left; --yes removes it

Words without dashes are those of python -m vlmbench.train -m: groups, keys, lists, hydra/launcher=... .
"""

from __future__ import annotations

import sys

from vlmbench.config.entry import run
from vlmbench.grid.options import Asked, read_words


def main() -> int:
    """Run the command; returns the exit status."""
    asked = read_words(sys.argv[1:], __doc__ or "")
    if asked is None:
        return 0
    from vlmbench.config.entry import compose
    from vlmbench.config.sweeping import Sweep

    sys.argv[1:] = ["-m", *asked.words]
    statuses: list[int] = []

    def take(sweep: Sweep) -> None:
        statuses.append(_do(asked, sweep))

    compose("train", "", sweep=take)
    return max(statuses, default=0)


def _do(asked: Asked, sweep: object) -> int:
    from vlmbench.grid import commands

    return getattr(commands, asked.command)(asked, sweep)


if __name__ == "__main__":
    run(main)
