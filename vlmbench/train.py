"""Train and evaluate one cell of the grid, or with -m every cell of a product.

python -m vlmbench.train model=tiny_clip finetune=lora domain=phantom_radiograph
python -m vlmbench.train model=tiny_llava_med finetune=lora finetune.scope=ML domain=phantom_ultrasound
python -m vlmbench.train domain=folder domain.root=DIR domain.name=mine domain.modality=radiograph
python -m vlmbench.train -m model=tiny_clip,tiny_medclip finetune=zero_shot,linear_probe,lora seed=0,1,2
python -m vlmbench.train -m sweep=demo
"""

from __future__ import annotations

import sys

from vlmbench.config.checks import check_cell
from vlmbench.config.entry import compose, run
from vlmbench.config.faults import ImpossibleCellError


def main() -> int:
    """Run the command; returns the exit status."""
    composed = compose("train", __doc__ or "")
    cells = []
    for config, overrides in zip(composed.configs, composed.overrides, strict=True):
        try:
            check_cell(config)
        except ImpossibleCellError as error:
            if not composed.multirun:
                raise
            print(f"left out: {' '.join(overrides)}: {error}", file=sys.stderr)
            continue
        cells.append(config)
    if not cells:
        return 0 if not composed.configs else 2
    from vlmbench.cell.grid import run_grid, run_one

    return run_grid(cells, jobs=cells[0].sweep.jobs) if composed.multirun else run_one(cells[0])


if __name__ == "__main__":
    run(main)
