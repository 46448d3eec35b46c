"""Where LoRA goes in a model: the backbones' own tables, counted on the published configuration without weights."""

from __future__ import annotations

import importlib
import json
import re
import tempfile
import typing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vlmbench.config.method_checks import CONTRASTIVE_SCOPES, GENERATIVE_SCOPES
from vlmbench.weights.source import ASSETS, PACKAGE

ARCHITECTURES = ASSETS / "architectures"


@dataclass(frozen=True)
class Target:
    """LoRA in one scope of a model.

    Attributes:
        scope: As `finetune.scope`.
        pattern: Regular expression that fully matches the paths of the adapted modules; empty where the scope is the
            connector alone, which trains in full.
        layers: Modules that it matches; None where the model's configuration is not in the package.
        trainable: Parameters that train at the given rank, a connector in full included; None likewise.
    """

    scope: str
    pattern: str
    layers: int | None = None
    trainable: int | None = None


def configuration(architecture: str, source: str) -> Path | None:
    """Return the file of a model's published configuration, or of the shipped checkpoint's; None where neither is.

    Args:
        architecture: Name of the published one in the package.
        source: As the model's YAML names it.
    """
    shipped = ASSETS / source.removeprefix(PACKAGE) / "config.json" if source.startswith(PACKAGE) else None
    path = ARCHITECTURES / f"{architecture}.json" if architecture else shipped
    return path if path is not None and path.is_file() else None


def targets(loader: str, path: Path | None, rank: int) -> list[Target]:
    """Return where LoRA goes in every scope of a model.

    Args:
        loader: As the model's YAML names it.
        path: Its published configuration.
        rank: Of the updates.

    Raises:
        ValueError: There is no such loader or family, or the loader does not say what class of backbone it returns.
    """
    kind = backbone_class(loader)
    model = network(path) if path else None
    from vlmbench.backbones.contrastive.dual import DualEncoder

    if issubclass(kind, DualEncoder):
        # The tables are the class's: a dual encoder says where LoRA goes without having been made.
        return [_counted(scope, kind.lora_targets(kind, scope), (), model, rank) for scope in CONTRASTIVE_SCOPES]
    return [_counted(scope, pattern, whole, model, rank) for scope, pattern, whole in _generative(kind, model)]


def backbone_class(loader: str) -> Any:
    """Return the class of backbone that a loader says it returns.

    Raises:
        ValueError: It does not say, or there is no such loader.
    """
    from vlmbench.backbones.loaders import LOADERS

    if loader not in LOADERS:
        raise ValueError(f"there is no loader {loader}")
    module, _, name = LOADERS[loader].partition(":")
    function = getattr(importlib.import_module(f"vlmbench.backbones.{module}"), name)
    kind = typing.get_type_hints(function).get("return")
    if not isinstance(kind, type):
        raise ValueError(f"the loader {loader} does not name the class of backbone that it returns")
    return kind


@cache
def network(path: Path) -> Any:
    """Return a network of a published configuration on the meta device: shapes and names, no memory."""
    import torch

    raw = json.loads(path.read_text(encoding="utf-8"))
    with torch.device("meta"):
        if "model_cfg" in raw:
            return _open_clip(raw["model_cfg"])
        import transformers

        # A published configuration leaves out what does not decide shapes, of which transformers would warn.
        transformers.logging.set_verbosity_error()
        config = transformers.CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
        return getattr(transformers, raw["architectures"][0])(config)


def _open_clip(cfg: dict[str, Any]) -> Any:
    import open_clip
    from transformers import BertConfig

    from vlmbench.tuning.attention import unfuse

    with tempfile.TemporaryDirectory() as folder:
        made = open_clip.CLIP
        if "hf_model_name" in cfg["text_cfg"]:
            # The text towers of this format are BERT base; their configuration is another repository's file.
            BertConfig().save_pretrained(folder)
            cfg["text_cfg"] |= {"hf_model_name": folder, "hf_model_pretrained": False}
            made = open_clip.CustomTextCLIP
        model = made(**cfg)
    unfuse(model)
    return model


def _generative(kind: Any, model: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    from torch import nn

    from vlmbench.backbones.generative.family import Family, family_of

    # Where LoRA goes is read from the family and the configuration; no processor is needed, so that none is made.
    backbone = kind.__new__(kind)
    nn.Module.__init__(backbone)
    backbone.model, backbone.config = model, getattr(model, "config", None)
    backbone.family = family_of(backbone.config) if model is not None else Family()
    whole = backbone.family.connector
    return [(scope, backbone.lora_targets(scope), whole if "M" in scope else ()) for scope in GENERATIVE_SCOPES]


def _counted(scope: str, pattern: str, whole: tuple[str, ...], model: Any, rank: int) -> Target:
    if model is None:
        return Target(scope, pattern)
    found = [module for path, module in model.named_modules() if pattern and re.fullmatch(pattern, path)]
    # A down projection over all inputs of an output, and an up projection; a convolution's is as wide as its window.
    added = sum(rank * (module.weight.shape[0] + module.weight[0].numel()) for module in found)
    full = sum(p.numel() for name, p in model.named_parameters() if whole and name.startswith(whole))
    return Target(scope, pattern, len(found), added + full)
