"""The models and domains that there are: their YAML files, read without Hydra's composition, which takes seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vlmbench.config import schema
from vlmbench.config.checks import check_fields
from vlmbench.config.faults import ConfigError, unknown
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
    return group_files("model", config_dir)


def group_files(group: str, config_dir: str | None = None) -> dict[str, Path]:
    """Return the YAML files of a config group by name.

    Args:
        group: `model` or `domain`.
        config_dir: A folder of the user's own; its files go first.

    Raises:
        ConfigError: `config_dir` is not a folder.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir} is not a folder. Give the one that holds {group}/*.yaml.")
    folders = [conf_dir(), *([Path(config_dir)] if config_dir else [])]
    return {path.stem: path for folder in folders for path in (folder / group).glob("*.yaml")}


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
    with _explained(path):
        merged = _merged("model", path, files)
        for key in ("source", "base_url"):
            # A server of one's own has no name or address until the command line gives it.
            if merged.kind == "hosted" and OmegaConf.is_missing(merged, key):
                merged[key] = ""
        model = OmegaConf.to_object(merged)
        check_fields(model)
    return cast(schema.ModelConfig, model)


#: What takes most of the time to read of a domain, and a list of all of them does not show.
DETAILS = ("rules", "downloads", "label_prompts")


def read_domains(
    config_dir: str | None = None, *, details: bool = True, faults: list[str] | None = None
) -> dict[str, schema.DomainConfig]:
    """Return every domain by the name of its YAML file, which is what `domain=` takes; sorted.

    Args:
        config_dir: A folder of the user's own; its files go first.
        details: Whether label rules and downloads are read; without them it takes a third of the time.
        faults: Where given, a file that does not fit is left out, and what is wrong with it is added here.

    Raises:
        ConfigError: A file does not fit its schema, where `faults` is not given.
    """
    files = group_files("domain", config_dir)
    out = {}
    for name, path in sorted(files.items()):
        try:
            out[name] = read_domain(path, files, skip=() if details else DETAILS)
        except ConfigError as error:
            if faults is None:
                raise
            faults.append(str(error))
    return out


def named_domain(
    name: str, config_dir: str | None = None, overrides: Sequence[str] = (), *, complete: bool = True
) -> schema.DomainConfig:
    """Return one domain.

    Args:
        name: As `domain=` takes it.
        config_dir: A folder of the user's own; its files go first.
        overrides: `key=value` each, with or without `domain.` before the key.
        complete: Whether a domain that reads a folder must be told which.

    Raises:
        ConfigError: There is none of that name, or its file or an override does not fit its schema.
    """
    files = group_files("domain", config_dir)
    if name not in files:
        raise ConfigError(unknown("domain", name, files))
    domain = read_domain(files[name], files, overrides)
    if complete and getattr(domain, "root", None) == "":
        raise ConfigError(f"domain={name} needs root=..., the folder that holds its data.")
    return domain


def read_domain(
    path: Path, files: Mapping[str, Path], overrides: Sequence[str] = (), *, skip: Sequence[str] = ()
) -> schema.DomainConfig:
    """Read one YAML file of a domain; a folder that the user has to name is "" until an override does.

    Raises:
        ConfigError: The file cannot be read or does not fit.
    """
    with _explained(path):
        merged = _merged("domain", path, files, skip)
    with _explained(f"domain={path.stem}" if overrides else path):
        texts = [text.removeprefix("domain.") for text in overrides]
        for text in texts:
            key, equals, _ = text.partition("=")
            if not equals:
                raise ConfigError(f"{text!r} is no setting: write key=value, for example split=study.")
            if key.split(".")[0] not in (names := [str(name) for name in merged]):
                raise ConfigError(unknown("key", key, names))
        merged.merge_with(OmegaConf.from_dotlist(texts))
        if OmegaConf.is_missing(merged, "root"):
            merged.root = ""
        domain = OmegaConf.to_object(merged)
        check_fields(domain)
    return cast(schema.DomainConfig, domain)


def _merged(group: str, path: Path, files: Mapping[str, Path], skip: Sequence[str] = ()) -> Any:
    kind, contents = _layers(path, files)
    if not kind.startswith(f"schema/{group}/"):
        raise ConfigError(f"{path} names no schema of a {group}: its defaults begin with /schema/{group}/KIND@_here_.")
    merged = OmegaConf.structured(SCHEMAS[kind])
    for content in contents:
        merged.merge_with({key: value for key, value in content.items() if key not in skip})
    return merged


@contextmanager
def _explained(path: Path | str) -> Iterator[None]:
    try:
        yield
    except (OmegaConfBaseException, YAMLError, ConfigError, LookupError, OSError, ValueError, TypeError) as error:
        told = f"its defaults name {error}, which is not there" if type(error) is KeyError else str(error)
        if isinstance(error, OmegaConfBaseException) and error.full_key:
            told = f"{error.full_key}: {str(error.msg or error).splitlines()[0]}"
        raise ConfigError(f"{path}: {' '.join(told.split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: its defaults lead back to itself.") from error


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
