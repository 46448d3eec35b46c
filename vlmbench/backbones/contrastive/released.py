"""What releases of codes that no longer install share: their weights into native classes, sizes from the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.backbones.base import Release
from vlmbench.weights.release import need, other_release

# LoRA's places in transformers' `BertModel`; in a residual network they are the convolutions of its blocks, where PEFT
# puts a k x k convolution of low rank and a 1 x 1 one behind it.
BERT_LINEAR = r"\.encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|((attention\.)?output|intermediate)\.dense)"
RESNET_CONVOLUTION = r"\.layer\d\.\d+\.(conv\d|downsample\.0)"


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def depths(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    """Return how many blocks each stage has, from names that a pattern with two groups, stage and block, matches."""
    found = {match.groups() for name in state if (match := re.match(pattern, name))}
    return [sum(stage == other for other, _ in found) for stage in sorted({stage for stage, _ in found})]


def fill(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights that must fit name by name.

    Raises:
        CheckpointError: They do not; the message has the first difference.
    """
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise other_release(path, str(error).splitlines()[1].strip()) from error


def native(kind: Any, config: Any, state: Mapping[str, Tensor], path: Path) -> Any:
    """Return a model of transformers with weights whose names may be those of an older version.

    `from_pretrained` maps them, `load_state_dict` does not.

    Raises:
        CheckpointError: A weight is missing.
    """
    # BERT's buffer of old, which the class computes.
    weights = {name: value for name, value in state.items() if not name.endswith("position_ids")}
    settings = {"config": config, "state_dict": weights, "dtype": torch.float32, "output_loading_info": True}
    model, report = kind.from_pretrained(None, **settings)
    if missing := sorted(report["missing_keys"]):
        raise other_release(path, f"it lacks {missing[:3]}.")
    return model


def bert(state: Mapping[str, Tensor], release: Release, path: Path) -> tuple[Any, Any]:
    """Return a `BertModel` of the configuration in the companion `text`, and its tokenizer.

    Lower case, whatever the vocabulary: the releases have no `tokenizer_config.json`, and that was the default of the
    transformers that they were trained with.

    Raises:
        CheckpointError: The companion is not there, or `path` holds other weights.
    """
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = need(release.companions.get("text"), "the configuration and vocabulary of BERT", "companions.text")
    model = native(BertModel, BertConfig.from_pretrained(folder), state, path)
    return model, AutoTokenizer.from_pretrained(folder, do_lower_case=True)
