"""Train and evaluate one cell of the grid, or with -m every cell of a product.

python -m vlmbench.train model=tiny_clip finetune=lora domain=phantom_radiograph
python -m vlmbench.train model=tiny_llava_med finetune=lora finetune.scope=ML domain=phantom_ultrasound
python -m vlmbench.train domain=folder domain.root=DIR domain.name=mine domain.modality=radiograph
python -m vlmbench.train -m model=tiny_clip,tiny_medclip finetune=zero_shot,linear_probe,lora seed=0,1,2
python -m vlmbench.train -m sweep=demo
"""

from __future__ import annotations

from vlmbench.config.checks import check_cell
from vlmbench.config.entry import compose, run
from vlmbench.config.sweeping import Sweep
from vlmbench.grid.jobs import CellFailedError, run_job


def main() -> int:
    """Run the command; returns the exit status."""
    statuses: list[int] = []

    def launch(sweep: Sweep) -> None:
        from vlmbench.grid.sweep import run_sweep

        statuses.append(run_sweep(sweep))

    try:
        composed = compose("train", __doc__ or "", sweep=launch, job=run_job)
    except CellFailedError:  # of a sweeper or launcher that is not vlmbench's own, which ends by it
        return 1
    if composed.multirun or not composed.configs:
        return max(statuses, default=0)
    check_cell(composed.configs[0])
    from vlmbench.cell.told import run_one

    return run_one(composed.configs[0])


if __name__ == "__main__":
    run(main)
