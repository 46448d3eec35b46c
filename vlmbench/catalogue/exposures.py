"""The exposure of every model to every domain, as computed from what both declare or as the study has it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vlmbench.catalogue.table import columns
from vlmbench.config import schema
from vlmbench.config.exposure import exposure
from vlmbench.config.faults import ConfigError, unknown

PROFILES = ("ours", "study")
ABSENT = "-"
_STUDY = Path(__file__).resolve().parents[1] / "assets" / "exposure_study.yaml"
_FOOT = (
    "id: the pre-training covered the modality; ood: it did not; unknown: not declared, or covered in part.",
    "*: the other profile ({other}) says otherwise.",
)


def table(
    models: Mapping[str, schema.ModelConfig],
    domains: Mapping[str, schema.DomainConfig],
    profile: str = "ours",
    *,
    model_names: Sequence[str] = (),
    domain_names: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return the exposure of each model to each domain, a row a pair, models outermost.

    Args:
        models: By the name that `model=` takes, as `read.read_models` returns them.
        domains: By the name that `domain=` takes, as `read.read_domains` returns them; of them those count that
            have a modality: `folder` and the like are told theirs on the command line.
        profile: `ours` computes it; `study` takes the study's own table.
        model_names: Those to show; empty for all.
        domain_names: Those to show; empty for all. Under `study`, all that the study has.

    Returns:
        Per pair `model`, `role`, `domain`, `modality`; `ours` and `study`, each `id`, `ood`, `unknown` or, in the
        study's, "-" where it has no such pair; `exposure`, that of the profile; and `differs`, whether both profiles
        have an entry and it is another.

    Raises:
        ConfigError: No such profile, model or domain.
    """
    if profile not in PROFILES:
        raise ConfigError(unknown("profile", profile, PROFILES))
    shown = {name: domain for name, domain in domains.items() if domain.modality != "unknown"}
    models, shown = _chosen("model", models, model_names), _chosen("domain", shown, domain_names)
    rows = []
    for name, model in models.items():
        for place, domain in shown.items():
            ours = exposure(model.role, model.pretraining_modalities, domain.modality, domain.exposure)
            theirs = study(name, place)
            rows.append(
                {
                    "model": name,
                    "role": model.role,
                    "domain": place,
                    "modality": domain.modality,
                    "ours": ours,
                    "study": theirs,
                    "exposure": ours if profile == "ours" else theirs,
                    "differs": theirs not in (ABSENT, ours),
                }
            )
    if profile == "study":
        has = {key: {row[key] for row in rows if row["study"] != ABSENT} for key in ("model", "domain")}
        rows = [
            row
            for row in rows
            if (model_names or row["model"] in has["model"]) and (domain_names or row["domain"] in has["domain"])
        ]
    return rows


def text(rows: Sequence[Mapping[str, Any]], width: int = 0) -> str:
    """Return the rows of `table` as a matrix, a line a model, in as many blocks of domains as the width asks for.

    Args:
        rows: As `table` returns them.
        width: Characters of a line; 0 takes the terminal's.
    """
    if not rows:
        return "no model and domain of these have an entry"
    width = width or shutil.get_terminal_size((120, 24)).columns
    names = list(dict.fromkeys(row["model"] for row in rows))
    marked = {(row["model"], row["domain"]): row["exposure"] + "*" * row["differs"] for row in rows}
    left, blocks = max(map(len, ["model", *names])), [list[str]()]
    used = left
    for domain in dict.fromkeys(row["domain"] for row in rows):
        need = 2 + max(len(domain), len("unknown*"))
        if blocks[-1] and used + need > width:
            blocks.append([])
            used = left
        blocks[-1].append(domain)
        used += need
    matrices = [
        columns([["model", *block], *([name, *(marked[name, domain] for domain in block)] for name in names)], set())
        for block in blocks
    ]
    other = "study" if all(row["exposure"] == row["ours"] for row in rows) else "ours"
    foot = _FOOT if any(row["differs"] for row in rows) else _FOOT[:1]
    return "\n\n".join([*matrices, "\n".join(foot).format(other=other)])


def study(model: str, domain: str) -> str:
    """Return the study's entry, "-" where it has none."""
    for task in _study().values():
        if model in task["models"] and domain in task["domains"]:
            return "id" if domain in task["models"][model] else "ood"
    return ABSENT


@cache
def _study() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(_STUDY.read_text(encoding="utf-8"))
    return loaded


def _chosen(what: str, there: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    for name in names:
        if name not in there:
            raise ConfigError(unknown(what, name, there))
    return {name: there[name] for name in names or there}
