"""What a cell leaves of a tuned model, for transfers and for use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from vlmbench.tuning.heads import LinearHead, save_classifier

#: Folder of it, in the cell's directory.
SAVED = "saved"


def save(tuner: Any, backbone: Any, head: nn.Module | None, folder: Path) -> Path:
    """Write what was trained into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    tuner.save(backbone, folder)
    if isinstance(head, LinearHead):
        head.save(folder)
    elif head is not None:
        save_classifier(head, folder)
    return folder
