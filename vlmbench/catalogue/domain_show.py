"""One domain in words: where it comes from, how to get it, what it asks, and what of it is on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vlmbench.catalogue.domain_table import here, layout, licence, tasks
from vlmbench.catalogue.table import columns
from vlmbench.config import schema
from vlmbench.domains.base import SPLITS, Domain
from vlmbench.domains.subgroups import subgroups
from vlmbench.obtain.wanted import needed

_KINDS = ("label:", "type:")
_OWN, _MADE = "data of your own", "procedural images"
_PROMPTS = 2  # of a label that are shown


def facts(name: str, domain: schema.DomainConfig) -> dict[str, Any]:
    """Return what is known of a domain without its data, as plain values.

    Args:
        name: What `domain=` takes.
        domain: Its configuration.
    """
    return {
        "domain": name,
        "title": getattr(domain, "title", "") or (_OWN if hasattr(domain, "root") else _MADE),
        "modality": domain.modality,
        "tasks": tasks(domain),
        "kinds": list(getattr(domain, "kinds", [])),
        "licence": licence(domain),
        "citation": getattr(domain, "citation", ""),
        "homepage": getattr(domain, "homepage", ""),
        "access": getattr(domain, "access", ""),
        "how_to_get": getattr(domain, "how_to_get", ""),
        "download_gib": round(sum(part.gib for part in _downloads(domain)), 3),
        "fetch": f"python -m vlmbench.fetch domain={name}" if _downloads(domain) else "",
        "root": str(getattr(domain, "root", "")),
        "here": here(domain),
        "layout": {} if isinstance(domain, schema.PhantomDomainConfig) else layout(domain),
        "published": dict(getattr(domain, "published", {})),
        "group": getattr(domain, "group", ""),
        "attributes": dict(getattr(domain, "attributes", {})),
        "notes": getattr(domain, "notes", ""),
        "splits": _splits(domain) if isinstance(domain, schema.PublishedDomainConfig) else {},
        "rules": _rules(domain) if isinstance(domain, schema.PublishedDomainConfig) else {},
        "built": {},
    }


def described(built: Domain) -> dict[str, Any]:
    """Return what is told of a domain whose data are here: counts, subgroups, what was left out."""
    return {
        "name": built.name,
        "task": built.task,
        "labels": list(built.label_names),
        "multi_label": built.multi_label,
        "origin": built.origin,
        "splits": built.counts(),
        "subgroups": subgroups(built),
        "left_out": [dict(row) for row in built.left_out],
    }


def text(told: Mapping[str, Any]) -> str:
    """Return the facts in words."""
    kinds = f" ({', '.join(told['kinds'])})" if told["kinds"] else ""
    lines = [f"{told['domain']}: {told['title']}; {told['modality']}; {', '.join(told['tasks'])}{kinds}"]
    for key in ("licence", "citation", "homepage", "access"):
        if told[key] or key == "licence":
            lines.append(f"{key:<12} {told[key] or 'not stated'}")
    if told["how_to_get"]:
        lines.append(f"{'to get it':<12} {told['how_to_get']}")
    if told["fetch"]:
        size = f" ({told['download_gib']:g} GiB)" if told["download_gib"] else ""
        lines.append(f"{'download' if not told['how_to_get'] else '':<12} {told['fetch']}{size}")
    if told["published"]:
        lines.append(f"{'published':<12} " + ", ".join(f"{split} {n:,}" for split, n in told["published"].items()))
    if told["group"]:
        lines.append(f"{'groups':<12} {told['group']}")
    if told["attributes"]:
        names = (f"{name} ({column})" if column != name else name for name, column in told["attributes"].items())
        lines.append(f"{'subgroups':<12} {', '.join(names)}")
    if told["notes"]:
        lines.append(f"{'notes':<12} {' '.join(told['notes'].split())}")
    if told["here"] == "made":
        lines.append(f"{'data':<12} made on this machine when they are asked for")
    else:
        lines.append(f"{'data':<12} {told['here']} in {told['root'] or 'root=..., a folder of your own'}")
        lines += [f"  {'present' if there else 'missing'}    {part}" for part, there in told["layout"].items()]
    if told["splits"]:
        lines += ["", *(f"split={name:<6} {what}" for name, what in told["splits"].items())]
    for name, rule in told["rules"].items():
        used = f" ({rule['used']})" if rule["used"] else ""
        lines += ["", f"target={name}{used}: {rule['what']}"]
        prompts = [[f"  {label}", " | ".join(some)] for label, some in rule["prompts"].items()]
        lines.append(columns(prompts, set()))
    for way, built in told["built"].items():
        lines += ["", *_built(way, built)]
    if told.get("sheet"):
        lines += ["", f"{'sheet':<12} {told['sheet']}"]
    return "\n".join(lines)


def _downloads(domain: schema.DomainConfig) -> list[schema.DownloadConfig]:
    """Return what has to be downloaded for the domain's settings."""
    if not isinstance(domain, schema.PublishedDomainConfig):
        return []
    return [part for part in domain.downloads if needed(part.when, domain.settings)]


def _splits(domain: schema.PublishedDomainConfig) -> dict[str, str]:
    ours = (
        "the official split, with validation taken out of train by group where it has none"
        if domain.ours_split == "official"
        else f"made of all rows by {domain.group}, {'/'.join(f'{share:g}' for share in domain.split_fractions)} "
        f"train/val/test, seed {domain.split_seed}"
    )
    chosen = " (chosen)"
    return {
        "study": f"the study's, made by `{domain.study_split}`" + chosen * (domain.split == "study"),
        "ours": ours + chosen * (domain.split == "ours"),
    }


def _rules(domain: schema.PublishedDomainConfig) -> dict[str, dict[str, Any]]:
    out = {}
    for name, rule in domain.rules.items():
        ways = [way for way in ("study", "ours") if dataclasses.replace(domain, split=way).rule_name() == name]
        what = "one flag a label" if rule.columns else f"column {rule.column!r}"
        if rule.map:
            what += ", " + ", ".join(f"{raw or 'empty'!s} = {label}" for raw, label in rule.map.items())
        if rule.leave_out:
            what += f"; left out: {', '.join(raw or 'empty' for raw in rule.leave_out)}"
        prompts = {label: _said(rule, label) for label in rule.labels}
        out[name] = {
            "labels": list(rule.labels),
            "multi_label": bool(rule.columns),
            "used": " and ".join(f"split={way}" for way in ways)
            if domain.target == "auto"
            else "chosen"
            if ways
            else "",
            "what": what,
            "prompts": prompts,
        }
    return out


def _said(rule: schema.LabelRuleConfig, label: str) -> list[str]:
    phrases = rule.label_prompts.get(label) or [label]
    said = [template.replace("{label}", phrase) for phrase in phrases for template in rule.templates]
    more = [f"and {len(said) - _PROMPTS} more"] if len(said) > _PROMPTS else []
    return [*said[:_PROMPTS], *more]


def _built(way: str, built: Mapping[str, Any]) -> list[str]:
    if "fault" in built:
        return [f"{way}: {built['fault']}"]
    origin = f"; {built['origin']}" if built["origin"] else ""
    head, counts = [way, *SPLITS], built["splits"]
    names = list(dict.fromkeys(key for split in SPLITS for key in counts[split]))
    rows = [[f"  {_plain(name)}", *(f"{counts[split].get(name, 0):,}" for split in SPLITS)] for name in names]
    for attribute, values in built["subgroups"].items():
        rows.append([f"  by {attribute}", "", "", ""])
        rows += [[f"    {value}", *(f"{each[split]:,}" for split in SPLITS)] for value, each in values.items()]
    lines = columns([head, *rows], {1, 2, 3}).splitlines()
    lines[0] += origin
    return [*lines, *_left_out(built["left_out"])]


def _plain(name: str) -> str:
    for kind in _KINDS:
        if name.startswith(kind):
            return f"{name.removeprefix(kind)} questions" if kind == "type:" else f"= {name.removeprefix(kind)}"
    return name


def _left_out(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for entry in entries[:10]:
        what = f"{entry['image']}: " if entry["image"] else ""
        lines.append(f"  left out: {what}{entry['reason']} ({entry['examples']:,} examples)")
    if len(entries) > 10:
        lines.append(f"  left out: {len(entries) - 10:,} further images")
    return lines
