"""Write the README's table of public datasets, from their YAML files: python scripts/domains_table.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from make_miniature import MAKERS
from readme import README, with_table

from vlmbench.catalogue import exposures
from vlmbench.catalogue.domain_table import tasks
from vlmbench.catalogue.read import read_domains, read_models
from vlmbench.config.schema import DomainConfig, PublishedDomainConfig

BEGIN, END = "<!-- domains: made by scripts/domains_table.py -->", "<!-- /domains -->"
#: Domains whose tests build tables of the published sizes, and those whose tests read real images of theirs.
FULL_SIZE = {"camelyon17", "chexpert", "fairvlmed", "fairvlmed_vqa", "gf3300", "ham10000", "papila", "vqa_rad"}
REAL = {"ham10000", "kermany", "vqa_rad"}


def proofs(name: str) -> str:
    """Return the numbers, as the README explains them, of what proves the reading of a dataset."""
    holds = {"1": name in MAKERS, "2": name in FULL_SIZE, "3": name in REAL, "4": name.endswith("mnist")}
    return " ".join(number for number, held in holds.items() if held)


def rows(domain: PublishedDomainConfig) -> str:
    """Return the published numbers of rows: train / val / test."""
    given = [domain.published.get(split) for split in ("train", "val", "test")]
    if not any(given):
        return f"{sum(domain.published.values()):,} in all" if domain.published else ""
    return " / ".join("-" if count is None else f"{count:,}" for count in given)


def fetched(name: str, domain: PublishedDomainConfig) -> str:
    """Return how a dataset comes to a machine."""
    if domain.access == "gated":
        return "gated: `domains show`"
    return "public: `fetch`" if domain.downloads else "public, by hand: `domains show`"


def exposed(domains: Mapping[str, DomainConfig]) -> dict[str, str]:
    """Return by domain for how many specialists it is id / ood / unknown."""
    specialists = {
        name: model
        for name, model in read_models().items()
        if model.role == "specialist" and not model.source.startswith("package:")  # the tiny ones know phantoms alone
    }
    counts: dict[str, Counter[str]] = {}
    for row in exposures.table(specialists, domains):
        counts.setdefault(row["domain"], Counter())[row["exposure"]] += 1
    return {name: " / ".join(str(count[kind]) for kind in ("id", "ood", "unknown")) for name, count in counts.items()}


def table(domains: Mapping[str, DomainConfig]) -> str:
    """Return the table as Markdown: one row a public dataset."""
    lines = [
        "| domain | dataset | modality | kinds | rows (train / val / test) | licence | exposure | access | proved by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    seen = exposed(domains)
    published = {name: d for name, d in domains.items() if isinstance(d, PublishedDomainConfig)}
    for task in ("diagnosis", "vqa", "pretrain"):
        for name, domain in published.items():
            if tasks(domain)[0] == task:
                title = f"[{_cell(domain.title)}]({domain.homepage})" if domain.homepage else _cell(domain.title)
                cells = [domain.modality, ", ".join(domain.kinds), rows(domain), domain.licence, seen.get(name, "")]
                lines.append(
                    f"| `{name}` | {title} | {' | '.join(map(_cell, cells))} | {fetched(name, domain)} "
                    f"| {proofs(name)} |"
                )
    return "\n".join(lines)


def updated(text: str) -> str:
    """Return the README with the table as it is now.

    Raises:
        ValueError: The marks that enclose the table are gone.
    """
    return with_table(text, BEGIN, END, table(read_domains()))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
