"""Small checkpoints in the exact on-disk format of each release: same files, same keys, same configuration fields.

`python scripts/make_release.py NAME --out DIR` writes one; the tests load every one of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

Maker = Callable[[Path], None]
MODULES: tuple[str, ...] = (
    "contrastive",
    "contrastive_open",
    "conversions_contrastive",
    "conversions_generative",
    "generative",
    "generative_dynamic",
)


def makers() -> dict[str, Maker]:
    """Return for each model in `conf/model` what writes its small checkpoint.

    A maker writes the checkpoint into `main` under the folder it is given, and each companion under its own name.
    """
    found: dict[str, Maker] = {}
    for name in MODULES:
        found |= importlib.import_module(f"releases.{name}").MAKERS
    return found
