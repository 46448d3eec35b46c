"""The files of a release as a loader needs them: there, complete, of the names and shapes that the model has.

Nothing here runs code of a release. The one function that reads tensors imports torch when it is called: what locates,
fetches and locks weights works without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from vlmbench.errors import UserError


@dataclass(frozen=True)
class Release:
    """A checkpoint on this machine, as its owners released it, and how it is wanted.

    Attributes:
        folder: Where its files are.
        dtype: Type of the weights, a `torch.dtype`.
        companions: Where further files are, by the name that the loader knows them by.
    """

    folder: Path
    dtype: Any
    companions: Mapping[str, Path] = field(default_factory=dict)


class CheckpointError(UserError):
    """The files of a checkpoint are not what its loader reads."""


def need(path: str | Path | None, what: str, setting: str = "source") -> Path:
    """Return a part of a release, if it is there.

    Args:
        path: The file or folder; None where the model's YAML names none.
        what: What it holds.
        setting: Which setting of the model names it.

    Raises:
        CheckpointError: It is not there.
    """
    if path is None or not Path(path).exists():
        told = f"{what} is not named" if path is None else f"{path}, {what}, is not there"
        raise CheckpointError(f"{told}. Fetch the whole release; model.{setting} says where it is.")
    return Path(path)


def described(path: Path, what: str) -> dict[str, Any]:
    """Return what a JSON file of a release holds.

    Raises:
        CheckpointError: As `need`.
    """
    content: dict[str, Any] = json.loads(need(path, what).read_text(encoding="utf-8"))
    return content


def unpickled(path: Path, *needed: str) -> Any:
    """Return what a `.bin` or `.pth` holds; nothing in it is executed.

    Args:
        path: The file, or a folder with one `.pth`.
        needed: Names of weights from which the model's sizes are read.

    Raises:
        CheckpointError: The file is not there, the folder holds other than one, or one of those weights is not in it.
    """
    import torch

    files = sorted(path.glob("*.pth")) if path.is_dir() else [need(path, "a file of the release's weights")]
    if len(files) != 1:
        raise CheckpointError(f"{path} holds {len(files)} files *.pth instead of one.")
    # Files of torch before 1.6 are no archives, and cannot be mapped into memory.
    state = torch.load(files[0], map_location="cpu", weights_only=True, mmap=is_zipfile(files[0]))
    if missing := [name for name in needed if name not in state]:
        raise other_release(path, f"it lacks {missing}.")
    return state


def shapes(folder: Path, prefix: str) -> dict[str, list[int]]:
    """Return the shapes of the weights in a folder whose names begin with `prefix`, without it."""
    from safetensors import safe_open

    found: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="np") as opened:
            own = [key for key in opened.keys() if key.startswith(prefix)]  # noqa: SIM118 - no mapping
            found |= {key.removeprefix(prefix): opened.get_slice(key).get_shape() for key in own}
    for file in () if found else sorted(folder.glob("pytorch_model*.bin")):
        weights = unpickled(file).items()
        found |= {key.removeprefix(prefix): list(value.shape) for key, value in weights if key.startswith(prefix)}
    return found


def loaded(kind: Any, folder: Path, dtype: Any, *, elsewhere: tuple[str, ...] = (), **settings: Any) -> Any:
    """Return a model that a class of transformers reads from a folder, with every weight of it read.

    Args:
        kind: The class.
        folder: Where the files are.
        dtype: Type of the weights.
        elsewhere: As for `check_complete`.
        settings: Of `from_pretrained`.

    Raises:
        CheckpointError: As `check_complete`.
    """
    model, info = kind.from_pretrained(folder, dtype=dtype, weights_only=True, output_loading_info=True, **settings)
    check_complete(info, where=folder, elsewhere=elsewhere)
    return model


def vit_sizes(shapes: Mapping[str, Sequence[int]], patches: str, positions: str, mlp: str) -> dict[str, int]:
    """Return the sizes of a vision transformer with a class token, as transformers' configurations name them.

    Args:
        shapes: Of its weights.
        patches: Name of the weight that embeds patches, (width, 3, patch, patch).
        positions: Name of the learned positions, (..., 1 + patches of an image, width).
        mlp: Name of the weight of a feed-forward layer's first half, (hidden, width).
    """
    width, _, patch, _ = shapes[patches]
    side = patch * round((shapes[positions][-2] - 1) ** 0.5)
    return {"hidden_size": width, "patch_size": patch, "image_size": side, "intermediate_size": shapes[mlp][0]}


def first_of(folder: Path, names: Sequence[str], setting: str) -> Path:
    """Return the first file of those names that is in a folder.

    Raises:
        CheckpointError: None is.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"{folder} holds none of {', '.join(names)}. Download the release's weights into it, or name their "
        f"file in model.{setting}."
    )


def under(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the weights whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def depths(state: Mapping[str, Any], pattern: str) -> list[int]:
    """Return how many blocks each stage has, from names that a pattern with two groups, stage and block, matches."""
    found = {match.groups() for name in state if (match := re.match(pattern, name))}
    return [sum(stage == other for other, _ in found) for stage in sorted({stage for stage, _ in found})]


def linear(weight: Any) -> Any:
    """Return a Linear layer without a bias of a weight (outputs, inputs)."""
    from torch import nn

    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight)
    return layer


def fill(module: Any, state: Mapping[str, Any], path: Path) -> None:
    """Load weights into a network of torch, which they must fit name by name.

    Raises:
        CheckpointError: They do not; the message has the first difference.
    """
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        raise other_release(path, str(error).splitlines()[1].strip()) from error


def native(kind: Any, config: Any, state: Mapping[str, Any], path: Path) -> Any:
    """Return a model of a class of transformers with weights whose names may be those of an older version.

    `from_pretrained` maps them, `load_state_dict` does not.

    Args:
        kind: The class.
        config: Its configuration.
        state: The weights.
        path: Where they are from.

    Raises:
        CheckpointError: A weight is missing.
    """
    # BERT's buffer of old, which the class computes.
    weights = {name: value for name, value in state.items() if not name.endswith("position_ids")}
    settings = {"config": config, "state_dict": weights, "dtype": "float32", "output_loading_info": True}
    model, report = kind.from_pretrained(None, **settings)
    if missing := sorted(report["missing_keys"]):
        raise other_release(path, f"it lacks {missing[:3]}.")
    return model


def other_release(path: Path, difference: str) -> CheckpointError:
    """Return the error for a file that holds other weights than its release."""
    return CheckpointError(f"{path} is not the release that this loader reads: {difference}")


def check_complete(*infos: Mapping[str, Any], where: str | Path, elsewhere: tuple[str, ...] = ()) -> None:
    """Check that every weight was read.

    Args:
        infos: What transformers' `from_pretrained` tells of each reading.
        where: The folder that was read.
        elsewhere: Prefixes of weights that come from another place.

    Raises:
        CheckpointError: Weights are missing, or of other shapes, and would stay random.
    """
    rows = [row for info in infos for key in ("missing_keys", "mismatched_keys") for row in info[key]]
    names = {row if isinstance(row, str) else str(row[0]) for row in rows}
    if missing := sorted(name for name in names if not name.startswith(elsewhere)):
        raise CheckpointError(
            f"{len(missing)} weights of the model are not in {where}, or of other shapes, and would stay random: "
            f"{', '.join(missing[:3])}. Fetch the checkpoint again, or check model.loader."
        )
