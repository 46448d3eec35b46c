"""Bring the data and weights that a cell or a whole grid needs to this machine, and verify them.

python -m vlmbench.fetch domain=pathmnist         # a public dataset, into its folder below VLMBENCH_DATA
python -m vlmbench.fetch domain=chexpert          # a gated one: how to get it, and what of its layout is there
python -m vlmbench.fetch model=clip
python -m vlmbench.fetch -m model=clip,llava_med
python -m vlmbench.fetch -m sweep=demo            # every model of a grid
python -m vlmbench.fetch model=clip update=true   # a newer commit than the locked one

An interrupted download goes on where it stopped. Weights are locked in vlmbench.lock; gated ones need an account that
has accepted their terms and `hf auth login` or HF_TOKEN. Afterwards HF_HUB_OFFLINE=1 works, here and wherever HF_HOME,
VLMBENCH_DATA and vlmbench.lock are copied.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vlmbench.catalogue.sources import distinct
from vlmbench.catalogue.table import fetched
from vlmbench.config import schema
from vlmbench.config.checks import check_combination, check_fields
from vlmbench.config.entry import compose, run
from vlmbench.config.faults import ImpossibleCellError
from vlmbench.errors import UserError
from vlmbench.obtain.bring import bring
from vlmbench.obtain.by_hand import by_hand
from vlmbench.obtain.meter import counted
from vlmbench.obtain.wanted import Wanted, needed
from vlmbench.weights.fetch import fetch
from vlmbench.weights.progress import amount


def main() -> int:
    """Run the command; returns the exit status."""
    composed = compose("fetch", __doc__ or "")
    # Who names data wants them, whatever could be done with them in one cell with the model that is the default.
    named = {group for group in ("domain", "model") if any(word.startswith(f"{group}=") for word in sys.argv[1:])}
    cells: list[schema.FetchConfig] = []
    domains: dict[str, schema.DomainConfig] = {}
    for config in composed.configs:
        check_fields(config.model)
        if isinstance(config.domain, schema.PublishedDomainConfig):
            check_fields(config.domain)
        try:
            check_combination(config.model, config.task, config.finetune, config.domain)
        except ImpossibleCellError:
            if not composed.multirun and named != {"domain"}:
                raise
            if "domain" not in named:  # train leaves the cell out as well
                continue
        else:
            cells.append(config)
        domains.setdefault(repr(config.domain), config.domain)
    complete = [data(domain) for domain in domains.values()]
    for name in dict.fromkeys(config.model.name for config in cells if config.model.kind == "hosted"):
        print(f"{name}: behind an endpoint, nothing to fetch")
    sources = distinct(config.model for config in cells)
    rows = [fetch(label, source, cells[0].lock, update=cells[0].update) for label, source in sources]
    if rows:
        print(fetched(rows))
    for row in rows:
        if row.fault:
            print(f"vlmbench: {row.label}: {row.fault}", file=sys.stderr)
    if composed.configs and not domains:
        return 2
    return 1 if any(row.fault for row in rows) or not all(complete) else 0


def data(domain: schema.DomainConfig) -> bool:
    """Bring a domain's data, or say how a user gets them; returns whether they are complete."""
    if not isinstance(domain, schema.PublishedDomainConfig):
        source = f"read from {domain.root}" if isinstance(domain, schema.TableDomainConfig) else "made on this machine"
        print(f"{domain.name}: {source}, nothing to fetch")
        return True
    root = Path(os.path.abspath(Path(domain.root).expanduser()))
    wanted = [wanted_of(one) for one in domain.downloads if needed(one.when, domain.settings)]
    if not wanted and domain.downloads:
        offered = "; ".join(f"{key}={value}" for one in domain.downloads for key, value in one.when.items())
        keys = dict.fromkeys(key for one in domain.downloads for key in one.when)
        asked = ", ".join(f"{key}={domain.settings.get(key)}" for key in keys)
        print(f"{domain.name}: missing, in {root}", flush=True)
        print(f"vlmbench: {domain.name}: for {asked} nothing is published, but for {offered}", file=sys.stderr)
        return False
    if not wanted:
        about = f"{domain.title or domain.name}, {domain.access}, {domain.licence or 'licence not stated'}"
        return by_hand(domain.name, about, domain.how_to_get or domain.homepage, root, domain.layout)
    chosen = any(one.when for one in domain.downloads)
    how = domain.how_to_get or (f"see {domain.homepage}" if domain.homepage else "")
    try:
        brought = bring(domain.name, root, wanted, domain.layout, chosen=chosen, how_to_get=how)
    except UserError as error:
        print(f"{domain.name}: missing, in {root}", flush=True)
        print(f"vlmbench: {domain.name}: {error}", file=sys.stderr)
        return False
    amounts = f", {counted(brought.files)}, {amount(brought.size)}" if brought.files else ""
    print(f"{domain.name}: {brought.status}{amounts}, in {root}", flush=True)
    return True


def wanted_of(download: schema.DownloadConfig) -> Wanted:
    """Return what a download of a YAML file asks for."""
    return Wanted(
        download.source,
        tuple(download.files),
        download.revision,
        download.checksum,
        download.into,
        download.unpack,
        download.gib,
    )


if __name__ == "__main__":
    run(main)
