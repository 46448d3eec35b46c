"""`vlmbench COMMAND ...` is the same as `python -m vlmbench.COMMAND ...`."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec

from vlmbench.config.entry import run

COMMANDS = {
    "train": "train and evaluate one cell, or with -m a grid",
    "evaluate": "take a finished cell to other domains",
    "grid": "plan a grid, watch it, run what failed again, clear up after it",
    "fetch": "bring the weights of a cell or a grid to this machine, and lock them",
    "domains": "what datasets there are, what of them is here, what their splits share",
    "models": "what models there are, what they need, where LoRA goes",
    "questions": "questions about a dataset, written by a hosted model from its notes",
    "judge": "open answers of finished cells, judged by a language model",
    "bertscore": "open answers of finished cells, scored by a text encoder",
    "predict": "put your own images to a finished cell",
    "report": "records to HTML, CSV and LaTeX",
}


def main() -> None:
    """Hand over to the command that the first argument names."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command not in COMMANDS:
        wanted = command in ("-h", "--help")
        listed = "\n".join(f"  {name:<9} {what}" for name, what in COMMANDS.items())
        fault = "" if wanted else f"vlmbench: there is no command {command!r}.\n"
        print(
            f"{fault}usage: vlmbench COMMAND ...\n\n{listed}\n\nvlmbench COMMAND --help tells more.",
            file=sys.stdout if wanted else sys.stderr,
        )
        sys.exit(0 if wanted else 2)
    sys.argv = [f"vlmbench {command}", *sys.argv[2:]]
    module = f"vlmbench.{command}"
    if find_spec(module).submodule_search_locations:  # type: ignore[union-attr]
        module += ".__main__"  # of a package
    run(importlib.import_module(module).main)


if __name__ == "__main__":
    main()
