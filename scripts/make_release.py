"""Write the small checkpoint of a model in its release's format: python scripts/make_release.py NAME --out DIR."""

from __future__ import annotations

import argparse
from pathlib import Path

from releases import makers


def main() -> None:
    """Write it, or list the names."""
    known = makers()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(known))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    known[arguments.name](arguments.out)


if __name__ == "__main__":
    main()
