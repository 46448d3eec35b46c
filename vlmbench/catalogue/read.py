"""The models that there are: their YAML files, read without Hydra's composition, which takes seconds for forty."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vlmbench.config import schema
from vlmbench.config.checks import ConfigError, check_fields, unknown
from vlmbench.config.store import SCHEMAS, conf_dir


def read_models(config_dir: str | None = None) -> dict[str, schema.ModelConfig]:
    """Return every model by the name of its YAML file, which is what `model=` takes; sorted.

    Args:
        config_dir: A folder of the user's own, as `--config-dir` of the other commands; its files go first.

    Raises:
        ConfigError: A file does not fit its schema.
    """
    files = model_files(config_dir)
    return {name: read_model(path, files) for name, path in sorted(files.items())}


def model_files(config_dir: str | None = None) -> dict[str, Path]:
    """Return the YAML file of each model.

    Raises:
        ConfigError: `config_dir` is not a folder.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir} is not a folder. Give the one that holds model/*.yaml.")
    folders = [conf_dir(), *([Path(config_dir)] if config_dir else [])]
    return {path.stem: path for folder in folders for path in (folder / "model").glob("*.yaml")}


def named(name: str, files: Mapping[str, Path]) -> schema.ModelConfig:
    """Return one model.

    Raises:
        ConfigError: There is none of that name; the message has the nearest.
    """
    if name not in files:
        raise ConfigError(unknown("model", name, files))
    return read_model(files[name], files)


def read_model(path: Path, files: Mapping[str, Path]) -> schema.ModelConfig:
    """Read one YAML file: its schema, the files of its group that it builds on, and its own keys.

    Raises:
        ConfigError: The file cannot be read or does not fit.
    """
    try:
        kind, contents = _layers(path, files)
        if not kind.startswith("schema/model/"):
            raise ConfigError(f"{path} names no schema of a model: its defaults begin with /schema/model/KIND@_here_.")
        merged = OmegaConf.structured(SCHEMAS[kind])
        for content in contents:
            merged.merge_with(content)
        for key in ("source", "base_url"):
            # A server of one's own has no name or address until the command line gives it.
            if merged.kind == "hosted" and OmegaConf.is_missing(merged, key):
                merged[key] = ""
        model = OmegaConf.to_object(merged)
        check_fields(model)
    except (OmegaConfBaseException, YAMLError, ConfigError, LookupError, OSError, ValueError, TypeError) as error:
        told = f"its defaults name {error}, which is not there" if type(error) is KeyError else str(error)
        raise ConfigError(f"{path}: {' '.join(told.split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: its defaults lead back to itself.") from error
    return cast(schema.ModelConfig, model)


def _layers(path: Path, files: Mapping[str, Path]) -> tuple[str, list[dict[str, Any]]]:
    """Return the name of a file's schema, and the contents to lay over it, the file's own last."""
    # libyaml's loader is ten times as fast as the one in Python.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = dict(yaml.load(path.read_text(encoding="utf-8"), Loader=loader) or {})  # noqa: S506 - a safe loader
    kind, below = "", list[dict[str, Any]]()
    for entry in content.pop("defaults", []):
        if not isinstance(entry, str) or entry == "_self_":
            continue  # an override of another group concerns the cell, not the model
        name = entry.partition("@")[0].strip("/")
        if name in SCHEMAS:
            kind = name
        else:
            kind, below = _layers(files[name], files)
    return kind, [*below, content]
