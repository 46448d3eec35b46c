"""What is said of a configuration that cannot work."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from vlmbench.errors import UserError


class ConfigError(UserError):
    """The configuration cannot work; the message names the key and lists the valid choices."""


class ImpossibleCellError(ConfigError):
    """A combination of model, task, finetune and domain that has no meaning; a grid leaves it out."""


class AbsentError(ConfigError):
    """What the configuration names is right but not on this machine; a plan goes on without it."""


def unknown(what: str, value: object, valid: Iterable[str]) -> str:
    """Return the message for a value that is not among the valid ones, with the nearest as a suggestion."""
    options = sorted(valid)
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{what}={value!r} is not valid.{hint} Valid choices: {', '.join(options)}."
