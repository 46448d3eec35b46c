"""Take a finished cell to another domain without training (transfer), or with -m to several.

python -m vlmbench.evaluate cell=runs/diagnosis/CELL domain=phantom_ultrasound
python -m vlmbench.evaluate -m cell=runs/diagnosis/CELL domain=phantom_fundus,phantom_oct
python -m vlmbench.evaluate -m cell=runs/diagnosis/CELL domain=phantom_oct domain.corruption=noise domain.severity=1,3
"""

from __future__ import annotations

import sys

from vlmbench.config.checks import check_fields
from vlmbench.config.domain_checks import check_domain
from vlmbench.config.entry import compose, run


def main() -> int:
    """Run the command; returns the exit status."""
    composed = compose("evaluate", __doc__ or "")
    for config in composed.configs:
        check_fields(config)
        check_domain(config.domain, "")
    from vlmbench.cell.stopping import EXIT_STATUS, Interrupted, stoppable
    from vlmbench.cell.told import tell
    from vlmbench.cell.transfer import prepare_transfer, run_transfer
    from vlmbench.records.claim import ClaimedError

    status = 0
    try:
        with stoppable():
            # All are checked before the first is run: a mistake in the last should not cost the hours of the others.
            for transfer in [prepare_transfer(config) for config in composed.configs]:
                try:
                    record = run_transfer(transfer)
                except ClaimedError as error:
                    print(f"vlmbench: {error} Left alone.", file=sys.stderr)
                    status = 3
                    continue
                status = max(status, tell(transfer.label, transfer.folder, record))
    except Interrupted as stop:
        print(f"vlmbench: {stop}.", file=sys.stderr)
        return EXIT_STATUS
    return status


if __name__ == "__main__":
    run(main)
