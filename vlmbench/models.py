"""The models that there are: where they come from, what they take, and where LoRA goes in them.

python -m vlmbench.models                    # all of them, in a table
python -m vlmbench.models show medgemma      # one, in words: licence, memory, download, LoRA targets
python -m vlmbench.models show clip --json
"""

from __future__ import annotations

import argparse
import json

from vlmbench.catalogue import table
from vlmbench.catalogue.read import model_files, named, read_models
from vlmbench.config.entry import run
from vlmbench.weights.lock import read_lock


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m vlmbench.models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["list", "show"], default="list")
    parser.add_argument("name", nargs="?", help="of the model to show")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="where YAML files of your own are, in DIR/model")
    parser.add_argument("--lock", default="vlmbench.lock", help="lock file of the weights (%(default)s)")
    parser.add_argument("--rank", type=int, default=8, help="of LoRA, for the counts of show (%(default)s)")
    asked = parser.parse_args()
    if (asked.what == "show") != bool(asked.name):
        parser.error("show takes the name of a model, and list none")
    if asked.rank < 1:
        parser.error("--rank is at least 1")
    lock = read_lock(asked.lock)
    if asked.what == "show":
        from vlmbench.catalogue.show import facts, text

        told = facts(asked.name, named(asked.name, model_files(asked.config_dir)), lock, rank=asked.rank)
        print(json.dumps(told, indent=1) if asked.json else text(told))
        return 0
    models = read_models(asked.config_dir)
    rows = table.rows(models, lock)
    print(json.dumps(rows, indent=1) if asked.json else table.terminal(rows))
    return 0


if __name__ == "__main__":
    run(main)
