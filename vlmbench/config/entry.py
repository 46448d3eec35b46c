"""How every command starts: Hydra composes, the schema types, the checks check, and an error is one clear message."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from vlmbench.config.added import reject_added_keys
from vlmbench.config.faults import ConfigError, unknown
from vlmbench.config.store import conf_dir, register
from vlmbench.config.sweeping import Handler, Sweep, handled_by
from vlmbench.errors import UserError


@dataclasses.dataclass
class Composed:
    """What a command line means.

    Attributes:
        configs: One plain dataclass tree for each job; several in a multirun.
        overrides: The overrides of each job, as typed.
        multirun: Whether `-m` was given.
    """

    configs: list[Any] = dataclasses.field(default_factory=list)
    overrides: list[list[str]] = dataclasses.field(default_factory=list)
    multirun: bool = False


def compose(
    config_name: str,
    usage: str,
    *,
    sweep: Handler | None = None,
    job: Callable[[DictConfig], Any] | None = None,
) -> Composed:
    """Compose the configuration that `sys.argv` asks for.

    Hydra's own flags work as everywhere (`--help`, `--cfg job`, `--config-dir`, `-m`). Nothing heavy is imported; flags
    that only print leave `configs` empty.

    Args:
        config_name: Primary config in `conf/`.
        usage: What `--help` prints above the lists of valid options.
        sweep: What a multirun does with its points and Hydra's launcher; without one they are collected like others.
        job: What a launcher that is not vlmbench's own runs for each point of a multirun.

    Raises:
        ConfigError: The command line or a YAML file is wrong.
        KeyboardInterrupt: Ctrl-C, also where a library makes an error of it.
        Exception: Whatever `sweep` raises.
    """
    # Hydra's own --help copies its whole registry for each group and takes seconds.
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(usage, config_name))
        return Composed()
    with _ctrl_c_as_it_came():
        register()
    composed = Composed()
    configs: list[DictConfig] = []

    # Hydra prints errors and exits by itself unless asked for the full error; the messages here say more.
    verbose = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"

    faults: list[Exception] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)
    def collect(config: DictConfig) -> Any:
        composed.multirun = HydraConfig.get().mode == RunMode.MULTIRUN
        if job is not None and composed.multirun:
            return job(config)
        composed.overrides.append(list(HydraConfig.get().overrides.task))
        configs.append(config)
        return None

    def take(points: Sweep) -> Any:
        composed.multirun = True
        composed.configs.extend(points.configs)
        composed.overrides.extend(list(words) for words in points.overrides)
        try:
            return sweep(points) if sweep else None
        except Exception as error:  # noqa: BLE001 - it is no fault of the configuration, and is raised below
            faults.append(error)
            return None

    try:
        with _ctrl_c_as_it_came():
            with handled_by(take):
                collect()
            for config in configs:
                reject_added_keys(config)
                composed.configs.append(OmegaConf.to_object(config))
    # Hydra raises a plain ValueError for flags that exclude each other.
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        if verbose == "1":
            raise
        raise ConfigError(explain(error)) from error
    finally:
        if verbose is None:
            del os.environ["HYDRA_FULL_ERROR"]
    if faults:
        raise faults[0]
    return composed


@contextmanager
def _ctrl_c_as_it_came() -> Iterator[None]:
    """Let Ctrl-C pass the libraries: OmegaConf tidies up what is half made then, trips over it, and says that instead.

    Raises:
        KeyboardInterrupt: One was the cause of whatever went wrong in the block.
    """
    try:
        yield
    except Exception as error:
        causes: list[BaseException] = []  # a chain that libraries have bent may come round again
        cause: BaseException | None = error
        while cause is not None and cause not in causes:
            causes.append(cause)
            cause = cause.__cause__ or cause.__context__
        if any(isinstance(found, KeyboardInterrupt) for found in causes):
            raise KeyboardInterrupt from error
        raise


def help_text(usage: str, config_name: str) -> str:
    """Return a command's help: its usage, then every config group with its options, the user's own included."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    folders = [conf_dir()]
    if (own := parser.parse_known_args()[0].config_dir) is not None:
        folders.append(Path(own))
    groups = [group.removeprefix("- ").partition(":")[0] for group in _defaults(conf_dir() / f"{config_name}.yaml")]
    lines = []
    for group in groups:
        options = sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})
        if options:
            lines.append(f"  {group:<9} {', '.join(options)}")
    listed = "\n".join(["", "Config groups, chosen as group=option:", *lines, ""]) if lines else ""
    return f"""{usage.strip()}
{listed}
Any key can be set as key=value. --cfg job prints the composed configuration, --config-dir DIR adds your own YAML files,
--hydra-help lists Hydra's further flags."""


def _defaults(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.startswith("  - ") and ": " in line and "override" not in line]


def explain(error: BaseException) -> str:
    """Return what is wrong in one message: the key, what is valid there, and the nearest to what was typed."""
    # Hydra wraps some errors and raises others beside; OmegaConf adds a cause that says less while a debugger traces.
    chain = (error.__cause__, error, error.__context__)
    told = (link for link in chain if isinstance(link, OmegaConfBaseException) and link.object_type is not None)
    if (cause := next(told, None)) is not None:
        key, full_key, kind = cause.key, cause.full_key, cause.object_type
        if dataclasses.is_dataclass(kind):
            names = [item.name for item in dataclasses.fields(kind)]
            parent = full_key.rpartition(".")[0] if full_key else ""
            where = f"a key of {parent}" if parent else "a key or config group"
            if key is not None and str(key) not in names:
                return unknown(where, key, names)
            if isinstance(cause, MissingMandatoryValue):
                return f"{full_key} is not set. Set it on the command line, {full_key}=..., or in its YAML file."
            if key is not None:
                return f"{full_key}: {str(cause.msg or cause).splitlines()[0]}."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("Config search path", "provider=", "See https"))]
    return " ".join(kept)


def run(main: Callable[[], int]) -> None:
    """Run a command; what the user can mend becomes one message and exit status 2, Ctrl-C one and 130."""
    try:
        status = main()
    except UserError as error:
        print(f"vlmbench: {error}", file=sys.stderr)
        status = 2
    except BrokenPipeError:  # `| head` has read enough; nothing may be written at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except KeyboardInterrupt:
        print("vlmbench: interrupted; the same command goes on where it stopped.", file=sys.stderr)
        status = 130
    sys.exit(status)
