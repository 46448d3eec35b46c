"""The words of `python -m vlmbench.grid`: its own options, and what Hydra is to read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from vlmbench.config.faults import ConfigError, unknown

#: What each command does, and the options that it takes.
COMMANDS = {
    "plan": (
        "count cells, estimate time, disk and downloads; runs, downloads and writes nothing",
        "cells json device tflops",
    ),
    "status": ("tell what has become of every cell", "cells json"),
    "watch": ("show the grid as it goes, until q, Ctrl-C or the last cell", "once device tflops"),
    "retry": ("launch the failed cells again, and no others, by the launcher that is named", ""),
    "clean": ("remove what failed and interrupted cells left, and what done ones no longer need", "yes others"),
}
#: Hydra's flag that goes through, and those that print instead of composing a sweep, which exclude `--multirun`.
_CONFIG_DIR = ("--config-dir", "-cd")
_PRINTING = ("--cfg", "-c", "--hydra-help", "--info", "-i", "--resolve")


@dataclass(frozen=True)
class Asked:
    """A command line.

    Attributes:
        command: A key of `COMMANDS`.
        words: What Hydra reads.
        flags: Those of them that are flags and that every cell's own command needs.
        cells: One line a cell.
        json: JSON instead of words.
        device: What is counted for, where cells leave it open.
        tflops: 10^12 FLOP/s that it reaches.
        once: Look once.
        yes: Remove what is only told otherwise.
        others: Also cells below `output` that are not of the sweep.
    """

    command: str
    words: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    cells: bool = False
    json: bool = False
    device: str | None = None
    tflops: float | None = None
    once: bool = False
    yes: bool = False
    others: bool = False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; python -m vlmbench.grid --help tells more.")


def read_words(words: Sequence[str], usage: str) -> Asked | None:
    """Return what a command line asks for; None where it was for help, which is printed.

    Raises:
        ConfigError: There is no such command or option, or the option is of another command.
    """
    if not words or words[0] in ("-h", "--help"):
        print(_parser(usage).format_help())
        return None
    command, *rest = words
    if command not in COMMANDS:
        raise ConfigError(unknown("command", command, COMMANDS))
    if {"-h", "--help"} & set(rest):
        print(_parser(usage, command).format_help())
        return None
    parser = _parser(usage)
    known, left = parser.parse_known_args(rest)
    options = COMMANDS[command][1].split()
    for name in vars(known):
        if name not in options and getattr(known, name) != parser.get_default(name):
            owners = ", ".join(owner for owner, (_, taken) in COMMANDS.items() if name in taken.split())
            raise ConfigError(f"--{name} is an option of {owners}, not of {command}.")
    kept, flags = _hydra(left)
    return Asked(command, kept, flags, **vars(known))


def _hydra(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words for Hydra, and those that say where configuration is; refuse flags that it would not know."""
    kept, flags = [], []
    rest = iter(words)
    for word in rest:
        name = word.partition("=")[0]
        if word in ("-m", "--multirun"):
            continue  # which every command here is
        if name in _PRINTING:
            raise ConfigError(f"{name} shows one cell: python -m vlmbench.train {name} ..., without a sweep's lists.")
        if word.startswith("-") and name not in _CONFIG_DIR:
            own = sorted({f"--{option}" for _, taken in COMMANDS.values() for option in taken.split()})
            raise ConfigError(unknown("option", word, [*own, "--config-dir"]))
        taken = [word, *([next(rest, "")] if name in _CONFIG_DIR and "=" not in word else [])]
        kept += taken
        flags += taken if name in _CONFIG_DIR else []
    return kept, flags


def _parser(usage: str, command: str | None = None) -> _Parser:
    """Return the parser of all options, or one that tells of those of one command."""
    listed = "\n".join(f"  {name:<7} {what}" for name, (what, _) in COMMANDS.items())
    text = usage.strip()
    if command is not None:
        examples = [line for line in text.splitlines() if f"vlmbench.grid {command} " in line]
        text = "\n".join([f"{COMMANDS[command][0].capitalize()}.", "", *examples, "", text.splitlines()[-1]])
    parser = _Parser(
        prog=f"python -m vlmbench.grid {command or 'COMMAND'}",
        usage="%(prog)s [options] [group=option,... | key=value,...] ...",
        description=text if command else f"{text}\n\ncommands:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )

    def add(flag: str, owners: str, **settings: object) -> None:
        if command is None or flag.removeprefix("--") in COMMANDS[command][1].split():
            text = str(settings.pop("help"))
            parser.add_argument(flag, help=text if command else f"{owners}: {text}", **settings)  # type: ignore[arg-type]

    add("--cells", "plan, status", action="store_true", help="one line a cell")
    add("--json", "plan, status", action="store_true", help="print JSON")
    add("--device", "plan, watch", metavar="NAME", help="a100, h100, l40s or cpu, where the cells leave it open")
    add("--tflops", "plan, watch", metavar="X", type=float, help="10^12 operations a second that the device reaches")
    add("--once", "watch", action="store_true", help="look once, for scripts")
    add("--yes", "clean", action="store_true", help="remove what is only told of otherwise")
    add("--others", "clean", action="store_true", help="also cells below output=... that are not of this sweep")
    return parser
