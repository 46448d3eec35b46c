"""One model in words: what it is, what it was trained on, what it takes, how to get it, and where LoRA goes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vlmbench.catalogue.memory import ACTIVATION, memory, shape_of
from vlmbench.catalogue.presence import presence
from vlmbench.catalogue.sources import sources_of
from vlmbench.catalogue.table import columns, download_gib, source_text
from vlmbench.catalogue.targets import Target, configuration, targets
from vlmbench.config import schema
from vlmbench.config.checks import methods_of
from vlmbench.weights.locate import MAIN
from vlmbench.weights.lock import Lock

BATCH = {"contrastive": 32, "generative": 1}
PARTS = {"V": "vision", "M": "connector", "L": "language"}
_SINGLE = {"vision", "text", "V", "L"}
#: Methods that train less than a thousandth of a model, and nothing in it.
LIGHT = ("zero_shot", "linear_probe", "lp_text", "coop", "clip_adapter")
_LORA_SHARE = 0.005  # of the adapted parts; rank 8 on every Linear layer of a 7B model is 0.003


def facts(name: str, model: schema.ModelConfig, lock: Lock, *, rank: int) -> dict[str, Any]:
    """Return everything that `show` tells, as plain values; memory in GiB, parameters in millions.

    Args:
        name: What `model=` takes.
        model: Its configuration.
        lock: The lock file, for what is cached.
        rank: Rank of LoRA.
    """
    lora, note = _targets(model, rank)
    sources = sources_of(model)
    return {
        "model": name,
        "kind": model.kind,
        "role": model.role,
        "pair": model.pair,
        "family": model.family,
        "licence": model.licence,
        "source": source_text(model),
        "revision": model.revision,
        "companions": {key: source.name for key, source in sources.items() if key != MAIN},
        "loader": model.loader,
        "pretraining_modalities": list(model.pretraining_modalities),
        "pretraining_source": model.pretraining_source,
        "image_size": model.image_size,
        "parameters": dict(model.parameters),
        "download_gib": round(download_gib(model), 3),
        "gated": any(source.gated for source in sources.values()),
        "how_to_get": model.how_to_get,
        "cached": presence(model, lock),
        "fetch": f"python -m vlmbench.fetch model={name}" if any(s.remote for s in sources.values()) else "",
        "learning_rates": dict(model.learning_rates),
        "default_scope": model.default_scope,
        "memory_gib": _memory(model, lora),
        "tiles": _tiled(model),
        "lora": {"rank": rank, "note": note, "targets": [asdict(target) for target in lora]},
    }


def text(told: Mapping[str, Any]) -> str:
    """Return the facts in words."""
    pair = f", the pair of {told['pair']}" if told["pair"] else ""
    lines = [
        f"{told['model']}: a {told['kind']} {told['role']}{pair}; family {told['family'] or 'not named'}",
        f"licence      {told['licence'] or 'not stated'}",
        f"source       {told['source'] or 'given as model.source=...'}"
        + (f" at {told['revision']}" if told["revision"] else ""),
        *(f"  needs      {name}: {source}" for name, source in told["companions"].items()),
        f"loader       {told['loader']}",
        f"pre-trained  {', '.join(told['pretraining_modalities']) or 'on no medical modality that is declared'}"
        f" ({told['pretraining_source'] or 'source not named'})",
        f"image        {told['image_size']} px a side" if told["image_size"] else "image        as large as it comes",
    ]
    if told["parameters"]:
        parts = ", ".join(f"{part} {count:,.1f} M" for part, count in told["parameters"].items())
        lines.append(f"parameters   {sum(told['parameters'].values()):,.1f} M: {parts}")
    lines += [f"download     {told['download_gib']:g} GiB", f"weights      {_weights(told)}"]
    if told["gated"] or told["how_to_get"]:
        how = told["how_to_get"] or "accept the terms on its page, then `hf auth login`"
        lines.append(f"{'gated' if told['gated'] else 'by hand':<12} {how}")
    if told["memory_gib"]:
        each = {method: f"{row['gib']:.1f}" for method, row in told["memory_gib"].items()}
        batch = next(iter(told["memory_gib"].values()))["batch"]
        basis = "the sizes alone" if told["parameters"] else "the size of the download alone"
        tile = ", one tile an image (a large image takes several)" if told["tiles"] else ""
        lines += ["", f"GPU memory in GiB, an estimate from {basis}: bfloat16, {batch} example(s) a step{tile}"]
        lines.append(columns([["finetune", *each], ["", *each.values()]], set(range(1, len(each) + 1))))
    if told["lora"]["targets"]:
        lines += ["", f"LoRA (rank {told['lora']['rank']}); the pattern matches whole paths of modules"]
        singles = {row["scope"]: row["pattern"] for row in told["lora"]["targets"] if row["scope"] in _SINGLE}
        rows = [_target(row, singles) for row in told["lora"]["targets"]]
        lines.append(columns([["scope", "layers", "trainable", "pattern"], *rows], {1, 2}))
    if told["lora"]["note"]:
        lines.append(told["lora"]["note"])
    return "\n".join(lines)


def _tiled(model: schema.ModelConfig) -> bool:
    """Tell whether a model cuts a large image into tiles, each of which takes tokens of its own."""
    path = configuration(model.architecture, model.source)
    raw = json.loads(path.read_text(encoding="utf-8")) if path else {}
    return "image_grid_pinpoints" in raw or raw.get("model_type") == "internvl"


def _weights(told: Mapping[str, Any]) -> str:
    where = {
        "shipped": "in the package",
        "hosted": "behind an endpoint",
        "complete": "on this machine, complete",
        "partial": "on this machine in part; the rest:",
        "absent": "not on this machine; to get them:",
    }[told["cached"]]
    how = told["fetch"] or told["how_to_get"] or f"put the checkpoint into {told['source']}"
    return f"{where} {how}" if told["cached"] in ("partial", "absent") else where


def _target(row: Mapping[str, Any], singles: Mapping[str, str]) -> list[str]:
    # A union repeats the patterns of its parts; the connector trains in full.
    parts = [scope for scope, pattern in singles.items() if pattern and pattern in row["pattern"]]
    rest = row["pattern"]
    for scope in parts:
        rest = rest.replace(singles[scope], "").strip("|")
    places = " and ".join(["those of", *parts]).replace("those of and", "those of") if len(parts) > 1 else ""
    places = ", and ".join(text for text in (places, rest) if text) if places else row["pattern"]
    if "M" in row["scope"]:
        places = f"{places}, and the connector in full" if places else "no adapter: the connector in full"
    layers = "-" if row["layers"] is None else str(row["layers"])
    trainable = "-" if row["trainable"] is None else f"{row['trainable']:,}"
    return [row["scope"], layers, trainable, places]


def _targets(model: schema.ModelConfig, rank: int) -> tuple[list[Target], str]:
    if "lora" not in methods_of(model):
        return [], ""
    path = configuration(model.architecture, model.source)
    try:
        found = targets(model.loader, path, rank)
    except ValueError as error:
        return [], f"Where LoRA goes is not known: {error}."
    return found, "" if path else "Not counted: the package has no published configuration of this model."


def _memory(model: schema.ModelConfig, lora: list[Target]) -> dict[str, dict[str, Any]]:
    parts = {part: count * 1e6 for part, count in model.parameters.items()} or _guessed(model)
    if not parts or model.kind == "hosted":
        return {}
    path = configuration(model.architecture, model.source)
    architecture = json.loads(path.read_text(encoding="utf-8")) if path else None
    shape, batch = shape_of(model.kind, model.image_size, architecture), BATCH[model.kind]
    told = {}
    for method in methods_of(model):
        if method not in LIGHT and method not in ACTIVATION:
            continue
        scope = "M" if method == "connector" else "" if method in LIGHT else model.default_scope
        trained = _trained(method, scope, parts, lora)
        peak = memory(parts, shape, method, trained=trained, scope=scope, batch=batch)
        told[method] = {"gib": round(peak / 2**30, 2), "batch": batch, "scope": scope}
    return told


def _trained(method: str, scope: str, parts: Mapping[str, float], lora: list[Target]) -> dict[str, float]:
    if method in LIGHT:
        return {}
    named = [PARTS[letter] for letter in scope] if scope.isupper() else scope.split("+")
    touched = {part: parts.get(part, 0.0) for part in named}
    if method not in ("lora", "qlora"):
        return touched
    counted = next((target.trainable for target in lora if target.scope == scope), None)
    if counted is not None:
        return {"adapter": float(counted)}
    whole = touched.pop("connector", 0.0)
    return {"adapter": whole + _LORA_SHARE * sum(touched.values())}


def _guessed(model: schema.ModelConfig) -> dict[str, float]:
    """Return the parts of a model that declares none: the download's bytes, four each or, of a language model, two."""
    count = model.download_gib * 2**30
    if model.kind == "generative":
        return {"language": count / 2} if count else {}
    return {"vision": count / 8, "text": count / 8} if count else {}
