"""Bring the weights that a cell or a whole grid needs to this machine, verify them, and lock them in vlmbench.lock.

python -m vlmbench.fetch model=clip
python -m vlmbench.fetch -m model=clip,llava_med
python -m vlmbench.fetch -m sweep=demo            # every model of a grid
python -m vlmbench.fetch model=clip update=true   # a newer commit than the locked one

An interrupted download goes on where it stopped. Gated models need an account that has accepted their terms and
`hf auth login` or HF_TOKEN. Afterwards HF_HUB_OFFLINE=1 works, here and wherever HF_HOME and vlmbench.lock are copied.
"""

from __future__ import annotations

import sys

from vlmbench.catalogue.sources import distinct
from vlmbench.catalogue.table import fetched
from vlmbench.config import schema
from vlmbench.config.checks import ImpossibleCellError, check_combination, check_fields
from vlmbench.config.entry import compose, run
from vlmbench.weights.fetch import fetch


def main() -> int:
    """Run the command; returns the exit status."""
    composed = compose("fetch", __doc__ or "")
    cells: list[schema.FetchConfig] = []
    for config in composed.configs:
        check_fields(config.model)
        try:
            check_combination(config.model, config.task, config.finetune, config.domain)
        except ImpossibleCellError:
            if composed.multirun:  # train leaves it out as well
                continue
        cells.append(config)
    if not cells:
        return 0 if not composed.configs else 2
    for line in dict.fromkeys(data_of(config.domain) for config in cells):
        print(line)
    for name in dict.fromkeys(config.model.name for config in cells if config.model.kind == "hosted"):
        print(f"{name}: behind an endpoint, nothing to fetch")
    needed = distinct(config.model for config in cells)
    rows = [fetch(label, source, cells[0].lock, update=cells[0].update) for label, source in needed]
    if rows:
        print(fetched(rows))
    for row in rows:
        if row.fault:
            print(f"vlmbench: {row.label}: {row.fault}", file=sys.stderr)
    return 1 if any(row.fault for row in rows) else 0


def data_of(domain: schema.DomainConfig) -> str:
    """Return the line that says where a domain's data come from; nothing has to be downloaded for any so far."""
    if isinstance(domain, schema.TableDomainConfig):
        return f"{domain.name}: read from {domain.root}, nothing to fetch"
    return f"{domain.name}: made on this machine, nothing to fetch"


if __name__ == "__main__":
    run(main)
