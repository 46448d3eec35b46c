"""The generative releases' small checkpoints, loaded as their YAML files say."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from releases import makers
from releases.common import sample_image

from vlmbench.backbones.base import Turn
from vlmbench.backbones.loaders import load

CONF = Path(__file__).parents[1] / "conf" / "model"
ASKED = ("is there a nodule?", "On which side is the effusion, and how large is it?", "what?", "Describe the image.")
ANSWERS = ("yes", "on the right side; 3 cm", "melanoma", "no pneumonia")
SIZES = ((120, 96), (60, 150), (200, 50), (32, 40))


@functools.cache
def released(name: str) -> Path:
    """Return the folder of a release's small checkpoint, made once a process."""
    # Removed with the object when the process ends, which is kept with the folder.
    holder = tempfile.TemporaryDirectory(prefix=f"{name}-")
    makers()[name](Path(holder.name))
    _HOLDERS.append(holder)
    return Path(holder.name) / "main"


_HOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def declared(name: str) -> dict[str, Any]:
    """Return a model's YAML as it is written, without what it inherits."""
    return OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))  # type: ignore[return-value]


def backbone_of(name: str, folder: Path | None = None, **changes: Any) -> Any:
    """Load a release in float32 through the loader and the settings of its YAML."""
    yaml = declared(name)
    settings: dict[str, Any] = {
        key: yaml[key] for key in ("chat_template", "answer_prefix", "max_length") if key in yaml
    }
    settings |= {"processor": yaml.get("processor", {})} | yaml.get("settings", {}) | changes
    where = str(folder or released(name))
    return load(yaml.get("loader", "hf_vlm"), where, dtype=torch.float32, **settings)


def turns_of(backbone: Any, answered: bool = True) -> list[Turn]:
    """Return four turns on images of four shapes, with questions and answers of different lengths."""
    images = [backbone.preprocess(sample_image(*size)) for size in SIZES]
    answers = ANSWERS if answered else [""] * len(ANSWERS)
    return [Turn(*parts) for parts in zip(images, ASKED, answers, strict=True)]
