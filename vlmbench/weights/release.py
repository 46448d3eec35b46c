"""The files of a release as a loader needs them: there, complete, of the names and shapes that the model has.

Nothing here runs code of a release. The one function that reads tensors imports torch when it is called: what locates,
fetches and locks weights works without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from vlmbench.errors import UserError


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
        CheckpointError: The folder holds other than one such file, or one of those weights is not in the file.
    """
    import torch

    files = sorted(path.glob("*.pth")) if path.is_dir() else [path]
    if len(files) != 1:
        raise CheckpointError(f"{path} holds {len(files)} files *.pth instead of one.")
    # Files of torch before 1.6 are no archives, and cannot be mapped into memory.
    state = torch.load(files[0], map_location="cpu", weights_only=True, mmap=is_zipfile(files[0]))
    if missing := [name for name in needed if name not in state]:
        raise other_release(path, f"it lacks {missing}.")
    return state


def shapes(folder: Path, prefix: str) -> dict[str, list[int]]:
    """Return the shapes of the weights in a folder's safetensors files whose names begin with `prefix`, without it."""
    from safetensors import safe_open

    found: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="np") as opened:
            own = [key for key in opened.keys() if key.startswith(prefix)]  # noqa: SIM118 - no mapping
            found |= {key.removeprefix(prefix): opened.get_slice(key).get_shape() for key in own}
    return found


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
