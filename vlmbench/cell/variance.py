"""How far the size of a batch changes generated answers."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from vlmbench.domains.datamodule import DomainDataModule
from vlmbench.hosted.model import HostedVlm
from vlmbench.modules.base import TunedModule
from vlmbench.modules.generative import GenerativeModule

VARIANCE_EXAMPLES = 32  # enough to tell 3 % of answers that differ from none


def batch_variance(
    module: TunedModule, data: DomainDataModule, frame: pd.DataFrame, precision: str
) -> dict[str, Any] | None:
    """Return how many generated answers differ between batch size 1 and the cell's, in reduced precision.

    In float32 they do not differ, which a test holds; in lower precision sums in another order can tip a token. A share
    of the examples, from all over the split, is asked again: one at a time is the slowest way to ask. What a hosted
    model is batched with nobody knows.
    """
    if not isinstance(module, GenerativeModule) or module.mode != "vqa" or precision == "32-true":
        return None
    if isinstance(module.backbone, HostedVlm):
        return None
    rows = data.rows("test")
    again = range(0, len(rows), max(1, len(rows) // VARIANCE_EXAMPLES))[:VARIANCE_EXAMPLES]
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float16
    module.eval()
    with torch.autocast(module.device.type, dtype=dtype):
        differ = sum(module.alone(rows[index]) != frame["prediction"][index] for index in again)
    return {"examples": len(again), "differ": differ, "share": differ / len(again)}
