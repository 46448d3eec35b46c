"""The datasets that there are: where they come from, what is on this machine, what their splits share.

python -m vlmbench.domains                                       # all of them, in a table
python -m vlmbench.domains show chexpert --sheet chexpert.png    # one: licence, layout, splits, labels, subgroups
python -m vlmbench.domains show folder root=DIR label_column=finding group_column=patient
python -m vlmbench.domains audit chexpert split=study --strict   # do its splits share patients, images, questions?
python -m vlmbench.domains audit mine root=DIR --against chexpert --other split=study
python -m vlmbench.domains exposure --models clip,medsiglip --domains chexpert,phantom_oct

Keys after a name are those of the config group, as python -m vlmbench.train takes them: split=study, settings.size=64.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from vlmbench.catalogue import domain_table
from vlmbench.catalogue.read import named_domain, read_domains
from vlmbench.config.entry import run
from vlmbench.config.faults import ConfigError, unknown
from vlmbench.config.schema import DomainConfig

COMMANDS = ("list", "show", "audit", "exposure")
#: By option the only command that takes it.
OPTIONS = {
    "sheet": "show",
    "seed": "show",
    "against": "audit",
    "other": "audit",
    "strict": "audit",
    "models": "exposure",
    "domains": "exposure",
    "profile": "exposure",
}


def main() -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m vlmbench.domains",
        usage="%(prog)s [list] | show NAME [key=value ...] | audit NAME [key=value ...] | exposure   [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="where YAML files of your own are, in DIR/domain")
    one = parser.add_argument_group("show, audit")
    one.add_argument("--task", choices=["diagnosis", "vqa", "pretrain"], help="where a domain serves several")
    one.add_argument("--sheet", metavar="FILE.png", help="show: draw a contact sheet of its images")
    one.add_argument("--seed", type=int, default=0, help="show: of the images on the sheet (%(default)s)")
    one.add_argument("--against", metavar="OTHER", help="audit: compare with another domain, not its own splits")
    one.add_argument("--other", nargs="+", default=[], metavar="key=value", help="audit: keys of OTHER")
    one.add_argument(
        "--strict", action="store_true", help="audit: exit with 1 if test shares anything with train or val"
    )
    table = parser.add_argument_group("exposure")
    table.add_argument("--models", metavar="A,B", default="", help="which models (all)")
    table.add_argument("--domains", metavar="X,Y", default="", help="which domains (all)")
    table.add_argument("--profile", default="ours", help="ours, computed; or study, as the study has it (%(default)s)")
    asked = parser.parse_intermixed_args()
    command, *rest = asked.words or ["list"]
    if command not in COMMANDS:
        raise ConfigError(unknown("command", command, COMMANDS))
    if (command in ("show", "audit")) != bool(rest):
        parser.error(f"{command} takes {'the name of a domain' if not rest else 'options alone'}")
    for name, owner in OPTIONS.items():
        if command != owner and getattr(asked, name) != parser.get_default(name):
            raise ConfigError(f"--{name} is an option of {owner}, not of {command}.")
    return {"list": _list, "show": _show, "audit": _audit, "exposure": _exposure}[command](asked, rest)


def _domains(asked: argparse.Namespace) -> tuple[dict[str, DomainConfig], bool]:
    """Return all domains, and whether all files of them could be read; those that could not are told."""
    faults: list[str] = []
    read = read_domains(asked.config_dir, details=False, faults=faults)
    for fault in faults:
        print(f"vlmbench: {fault}", file=sys.stderr)
    return read, not faults


def _list(asked: argparse.Namespace, words: list[str]) -> int:
    read, complete = _domains(asked)
    rows = domain_table.rows(read)
    print(json.dumps(rows, indent=1) if asked.json else domain_table.terminal(rows))
    return int(not complete)


def _show(asked: argparse.Namespace, words: list[str]) -> int:
    from vlmbench.catalogue.domain_show import facts, text
    from vlmbench.cell.described import draw, every_way

    domain = named_domain(words[0], asked.config_dir, words[1:], complete=False)
    told = facts(words[0], domain) | {"built": every_way(domain, asked.task)}
    if asked.sheet:
        told["sheet"] = str(draw(domain, asked.task, asked.sheet, asked.seed))
    print(json.dumps(told, indent=1) if asked.json else text(told))
    return 0


def _audit(asked: argparse.Namespace, words: list[str]) -> int:
    from vlmbench.cell.described import built
    from vlmbench.cell.domain import clean
    from vlmbench.domains.against import audit_against
    from vlmbench.domains.audit import audit
    from vlmbench.domains.audit_text import text

    if asked.other and not asked.against:
        raise ConfigError("--other gives the keys of a second domain: name it with --against.")
    config = named_domain(words[0], asked.config_dir, words[1:])
    other = named_domain(asked.against, asked.config_dir, asked.other) if asked.against else None
    if config == other:
        raise ConfigError(f"--against {asked.against} is the same domain: without --against its splits are compared.")
    domain = clean(built(config, asked.task))
    found = audit(domain) if other is None else audit_against(domain, clean(built(other, asked.task)))
    print(json.dumps(found, indent=1) if asked.json else text(found), end="\n" if asked.json else "")
    return int(asked.strict and _shared_with_test(found))


def _shared_with_test(found: dict[str, Any]) -> bool:
    """Tell whether a test split shares anything with what may have been trained on or selected with."""
    # Names of groups and texts of questions coincide in two datasets without anything being shared.
    hints = ("groups", "question_texts") if "against" in found else ()
    pairs = [counts for pair, counts in found.items() if {*pair.split("-")} in ({"train", "test"}, {"val", "test"})]
    return any(count for counts in pairs for kind, count in counts.items() if kind not in ("examples", *hints))


def _exposure(asked: argparse.Namespace, words: list[str]) -> int:
    from vlmbench.catalogue.exposures import table, text
    from vlmbench.catalogue.read import read_models

    domains, complete = _domains(asked)
    rows = table(
        read_models(asked.config_dir),
        domains,
        asked.profile,
        model_names=[name for name in asked.models.split(",") if name],
        domain_names=[name for name in asked.domains.split(",") if name],
    )
    print(json.dumps(rows, indent=1) if asked.json else text(rows))
    return int(not complete)


if __name__ == "__main__":
    run(main)
