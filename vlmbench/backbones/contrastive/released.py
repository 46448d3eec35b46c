"""What reads releases of codes that no longer install: pickled weights into native classes, sizes from the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlmbench.backbones.base import Release
from vlmbench.errors import UserError

# LoRA's places in transformers' `BertModel`; in a residual network they are the convolutions of its blocks, where PEFT
# puts a k x k convolution of low rank and a 1 x 1 one behind it.
BERT_LINEAR = r"\.encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|((attention\.)?output|intermediate)\.dense)"
RESNET_CONVOLUTION = r"\.layer\d\.\d+\.(conv\d|downsample\.0)"


class IncompatibleWeightsError(UserError):
    """A file does not hold the weights that its release has."""


def read(path: Path, *needed: str) -> Any:
    """Return what a `.bin` or `.pth` holds; nothing in it is executed.

    Raises:
        IncompatibleWeightsError: It has no weights of the names in `needed`, from which sizes are read.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    if missing := [name for name in needed if name not in state]:
        raise IncompatibleWeightsError(f"{path} is not the release that this loader reads: it lacks {missing}.")
    return state


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
        IncompatibleWeightsError: They do not; the message has the first difference.
    """
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        difference = str(error).splitlines()[1].strip()
        raise IncompatibleWeightsError(f"{path} is not the release that this loader reads: {difference}") from error


def native(kind: Any, config: Any, state: Mapping[str, Tensor], path: Path) -> Any:
    """Return a model of transformers with weights whose names may be those of an older version.

    `from_pretrained` maps them, `load_state_dict` does not.

    Raises:
        IncompatibleWeightsError: A weight is missing.
    """
    # BERT's buffer of old, which the class computes.
    weights = {name: value for name, value in state.items() if not name.endswith("position_ids")}
    settings = {"config": config, "state_dict": weights, "dtype": torch.float32, "output_loading_info": True}
    model, report = kind.from_pretrained(None, **settings)
    if missing := sorted(report["missing_keys"]):
        raise IncompatibleWeightsError(f"{path} is not the release that this loader reads: it lacks {missing[:3]}.")
    return model


def bert(state: Mapping[str, Tensor], folder: Path, path: Path) -> tuple[Any, Any]:
    """Return a `BertModel` of the configuration in `folder`, and its tokenizer.

    Lower case, whatever the vocabulary: the releases have no `tokenizer_config.json`, and that was the default of the
    transformers that they were trained with.
    """
    from transformers import AutoTokenizer, BertConfig, BertModel

    model = native(BertModel, BertConfig.from_pretrained(folder), state, path)
    return model, AutoTokenizer.from_pretrained(folder, do_lower_case=True)


def companion(release: Release, name: str) -> Path:
    """Return where a companion is: as given, or beside the weights, where `save_pretrained` puts it."""
    return release.companions.get(name, release.folder / name)
