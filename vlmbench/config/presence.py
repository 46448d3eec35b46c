"""What a cell needs on this machine: its data, a local checkpoint, a key.

Told apart from mistakes, so that a grid can be planned where these are missing.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from vlmbench.config import schema
from vlmbench.config.endpoint import key_absence
from vlmbench.config.faults import AbsentError, ConfigError


def check_present(cell: schema.CellConfig) -> None:
    """Check that what a cell needs is on this machine.

    Raises:
        AbsentError: Something is not; the message says how to get it.
    """
    model_present(cell.model)
    domain_present(cell.domain)
    key_present(cell.model)
    package_present(cell.finetune)


def package_present(finetune: schema.FinetuneConfig) -> None:
    """Check that the package is installed that a method needs.

    Raises:
        AbsentError: It is not.
    """
    if isinstance(finetune, schema.QloraConfig) and find_spec("bitsandbytes") is None:
        raise AbsentError(
            "finetune=qlora needs the package bitsandbytes, which is not installed: pip install 'vlmbench[qlora]'. It "
            "computes on NVIDIA, AMD and Intel GPUs and, slowly, on CPUs. finetune=lora needs nothing more."
        )


def model_present(model: schema.ModelConfig) -> None:
    """Check a local folder of weights; what the hub has is looked for when it is loaded.

    Raises:
        AbsentError: The folder is not there.
    """
    is_address = model.source.startswith(("https://", "http://"))
    looks_local = model.source.startswith((".", "/", "~")) or model.source.count("/") > 1
    has_folder = model.kind != "hosted" and looks_local and not is_address
    if has_folder and not Path(model.source).expanduser().is_dir():
        hint = (
            "Give that of a checkpoint in the hub's format (config.json, *.safetensors, tokenizer), a hub id such as "
            "openai/clip-vit-base-patch32, or package:NAME."
        )
        if model.how_to_get:
            hint = f"To get the weights: {model.how_to_get}."
        raise AbsentError(f"model.source={model.source!r} is not a folder. {hint}")


def domain_present(domain: schema.DomainConfig) -> None:
    """Check a domain's folder and table.

    Raises:
        AbsentError: The folder is not there.
        ConfigError: It is, without the table.
    """
    if isinstance(domain, schema.TableDomainConfig):
        root = Path(domain.root).expanduser()
        if not root.is_dir():
            raise AbsentError(
                f"domain.root={domain.root!r} is not a folder. Give the folder that holds {domain.table}."
            )
        if not (root / domain.table).is_file():
            tables = sorted(p.name for p in root.iterdir() if p.suffix in {".csv", ".tsv", ".jsonl"})
            raise ConfigError(
                f"domain.table={domain.table!r} is not in {root}. Tables there: {', '.join(tables) or 'none'}."
            )
    if isinstance(domain, schema.PublishedDomainConfig) and not Path(domain.root).expanduser().is_dir():
        raise AbsentError(
            f"domain.root={domain.root!r} is not a folder. Bring {domain.title or domain.name} there, or learn how to "
            f"get it: python -m vlmbench.fetch domain={domain.name}. VLMBENCH_DATA names the folder of all datasets."
        )


def key_present(model: schema.ModelConfig) -> None:
    """Check that the environment has the key of a hosted model.

    Raises:
        AbsentError: It has not.
    """
    if isinstance(model, schema.HostedModelConfig) and (fault := key_absence(model.api_key_env, os.environ)):
        raise AbsentError(f"{model.name}: {fault}")
