"""The loaders that a model's YAML can name; each is imported when it is asked for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from vlmbench.backbones.base import Conversation
from vlmbench.errors import UserError
from vlmbench.weights.release import Release

LOADERS = {
    "hf_clip": "contrastive.clip:load_clip",
    "hf_siglip": "contrastive.clip:load_siglip",
    "hf_blip": "contrastive.blip:load_blip",
    "hf_blip2": "contrastive.blip:load_blip2",
    "open_clip": "contrastive.open_clip:load_open_clip",
    "medclip": "contrastive.medclip:load_medclip",
    "pmc_clip": "contrastive.pmc_clip:load_pmc_clip",
    "conch": "contrastive.conch:load_conch",
    "random_features": "contrastive.random_features:load_random_features",
    "hf_vlm": "generative.native:load_vlm",
    "llava_original": "generative.llava_original:load_llava_original",
    "vila": "generative.vila:load_vila",
    "xraygpt": "generative.xraygpt:load_xraygpt",
}


class SettingsError(UserError):
    """A model's YAML gives its loader a setting that the loader does not have."""


def load(
    loader: str, folder: str | Path, *, dtype: torch.dtype, companions: Mapping[str, str] | None = None, **settings: Any
) -> Any:
    """Return the backbone that `loader` makes of the files in `folder`; no code of the repository is run.

    Args:
        loader: A key of `LOADERS`.
        folder: Where the checkpoint's files are.
        dtype: Type of the weights.
        companions: Where further files are, by the name that the loader knows them by.
        settings: What else the loader takes; for a generative model, `Conversation`'s fields too.

    Raises:
        SettingsError: A setting that the loader does not take.
    """
    module, _, name = LOADERS[loader].partition(":")
    function = getattr(importlib.import_module(f"vlmbench.backbones.{module}"), name)
    taken = inspect.signature(function).parameters.keys()
    talked = {item.name for item in fields(Conversation)} if "conversation" in taken else set()
    known = (taken | talked) - {"release", "conversation"}
    if foreign := sorted(settings.keys() - known):
        raise SettingsError(
            f"model.settings holds {', '.join(foreign)}, which the loader {loader} does not take. "
            f"It takes: {', '.join(sorted(known)) or 'nothing'}."
        )
    release = Release(Path(folder), dtype, {key: Path(value) for key, value in (companions or {}).items()})
    parts: list[Any] = [release]
    if talked:
        parts.append(Conversation(**{key: settings.pop(key) for key in talked & settings.keys()}))
    return function(*parts, **settings)
