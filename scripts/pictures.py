"""Make the pictures of the documentation: the heat map of a grid's records, and the contact sheet of the phantoms.

python scripts/pictures.py --records runs/demo --out docs
"""

from __future__ import annotations

import argparse
from pathlib import Path

from contact_sheet import main as contact_sheet

from vlmbench.reporting.heatmap import heatmap_png
from vlmbench.reporting.load import load_rows


def main() -> None:
    """Write `heatmap.png` and `phantom.png`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=Path("runs/demo"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows, _unreadable = load_rows(arguments.records)
    print(heatmap_png(rows, arguments.out / "heatmap.png"))
    contact_sheet(["--out", str(arguments.out / "phantom.png")])


if __name__ == "__main__":
    main()
