"""Datasets that a user is given by somebody: the steps, the folder, and what of the layout is in it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from vlmbench.domains.published.layout import lacking


def by_hand(name: str, about: str, steps: str, root: Path, layout: Sequence[str]) -> bool:
    """Print what a user does to be given a dataset, and which parts of its layout are there.

    Args:
        name: Of the domain.
        about: Title, access and licence, for the first line.
        steps: How to get it.
        root: Its folder.
        layout: Patterns below it.

    Returns:
        Whether all of it is there.
    """
    there = root.is_dir()
    gone = lacking(root, layout) if there else list(layout)
    print(f"{name}: {about}")
    if gone or not there:
        print(f"  to get it  {steps or 'ask its owners'}")
    print(f"  folder     {root}{'' if there else ' (not there; domain.root or VLMBENCH_DATA names another)'}")
    for pattern in layout:
        print(f"  {'missing' if pattern in gone else 'present'}    {pattern}")
    sys.stdout.flush()
    if gone or not there:
        count = f"{len(gone)} of {len(layout)} parts of its layout are" if gone else "its folder is"
        print(f"vlmbench: {name}: {count} missing: {root}. How to get it is told above.", file=sys.stderr)
    return there and not gone
