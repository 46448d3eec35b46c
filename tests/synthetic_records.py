"""Writes plausible records without running anything: what the tests of everything that reads records start from."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

PAIRS = {
    "tiny_clip": "tiny_medclip",
    "tiny_medclip": "tiny_clip",
    "tiny_llava": "tiny_llava_med",
    "tiny_llava_med": "tiny_llava",
}
MODALITIES = {
    "phantom_radiograph": "radiograph",
    "phantom_fundus": "fundus",
    "phantom_dermoscopy": "dermoscopy",
    "phantom_ultrasound": "ultrasound",
}
SEEN = {"radiograph", "fundus", "dermoscopy"}
PARTS = {"zero_shot": (), "linear_probe": ("head",), "lora": ("vision", "head"), "full": ("vision", "text")}


def make_record(
    model: str = "tiny_clip",
    domain: str = "phantom_radiograph",
    *,
    task: str = "diagnosis",
    finetune: str = "lora",
    scope: str = "vision",
    seed: int = 0,
    value: float | None = None,
    trained_on: str | None = None,
    failed: str = "",
    **changes: Any,
) -> dict[str, Any]:
    """One record of schema 1; `value` sets the primary metric, `failed` an error message, `changes` whole fields."""
    name = "|".join(map(str, (model, domain, task, finetune, scope, seed, trained_on)))
    rng = random.Random(name)
    specialist = "med" in model
    modality = MODALITIES.get(domain, "other")
    exposure = "id" if specialist and modality in SEEN else "ood"
    primary = "auroc" if task == "diagnosis" else "accuracy"
    level = {"zero_shot": 0.56, "linear_probe": 0.74, "lora": 0.81, "full": 0.83}.get(finetune, 0.7)
    centre = value if value is not None else min(0.97, level + 0.08 * (exposure == "id") + rng.uniform(-0.06, 0.06))
    others = (
        ("average_precision", "accuracy", "f1")
        if task == "diagnosis"
        else ("closed_accuracy", "open_rouge_l", "closed_majority")
    )
    trainable = {part: {"trainable": 0, "total": 800_000} for part in ("vision", "text")}
    trainable |= {part: {"trainable": rng.randrange(500, 40_000), "total": 800_000} for part in PARTS.get(finetune, ())}
    fit = 0.0 if finetune == "zero_shot" else rng.uniform(8, 90)
    record: dict[str, Any] = {
        "schema": 1,
        "identity": hashlib.sha256(name.encode()).hexdigest(),
        "kind": "transfer" if trained_on else "cell",
        "status": "failed" if failed else "done",
        "cell": {"model": model, "task": task, "finetune": finetune, "scope": scope, "domain": domain, "seed": seed},
        "trained_on": trained_on,
        "role": "specialist" if specialist else "generalist",
        "pair": PAIRS.get(model, ""),
        "family": f"{model.replace('med', '').replace('_llava_', '_llava')}_family",
        "modality": modality,
        "exposure": exposure,
        "config": {
            "model": {"name": model},
            "task": {"name": task},
            "finetune": {"name": finetune, "rank": 8},
            "domain": {"name": domain, "size": 900},
            "trainer": {"max_epochs": 10, "lr": 0.0005},
            "seed": seed,
        },
        "primary_metric": primary,
        "metrics": {
            primary: _metric(rng, centre),
            **{other: _metric(rng, centre - rng.uniform(0, 0.1)) for other in others},
        },
        "bootstrap": {
            "unit": "group",
            "n_groups": 80,
            "confidence": 0.95,
            "seed": 0,
            "method": "cluster bootstrap, t on the logit scale",
        },
        "n": {"examples": 200, "groups": 80},
        "selection": {"metric": f"val/{primary}", "value": centre + 0.01, "epoch": 4},
        "cost": {
            "seconds": {"setup": 1.0, "fit": fit, "select": 0.5, "predict": 2.0, "total": fit + 3.5},
            "peak_memory_bytes": {"host": rng.randrange(900_000_000, 1_500_000_000), "device": None},
            "parameters": trainable,
            "examples_per_second": {"train": 200.0 if fit else None, "predict": 400.0},
            "saved_bytes": rng.randrange(10_000, 900_000) if fit else 0,
        },
        "data": {
            "fingerprint": hashlib.sha256(domain.encode()).hexdigest(),
            "splits": {
                "train": {"examples": 400, "images": 400, "groups": 150},
                "val": {"examples": 100, "images": 100, "groups": 40},
                "test": {"examples": 200, "images": 200, "groups": 80},
            },
            "left_out": [],
            "audit": {
                "train-test": {
                    "groups": 0,
                    "images": 0,
                    "pixels": 0,
                    "near_duplicates": 0,
                    "questions": 0,
                    "examples": [],
                }
            },
            "licence": "Apache-2.0",
        },
        "environment": {
            "python": "3.11.7",
            "platform": "Linux",
            "versions": {"torch": "2.15.0", "vlmbench": "0.1.0"},
            "git": {"commit": "0123456789abcdef", "dirty": False},
            "host": "node",
            "device": "cpu",
            "precision": "32-true",
        },
        "hashes": {"config": "c", "data": hashlib.sha256(domain.encode()).hexdigest(), "weights": "w", "saved": "s"},
        "error": None,
        "started": "2025-03-01T10:00:00+00:00",
        "finished": f"2025-03-01T10:{seed % 60:02d}:30+00:00",
    }
    if failed:
        for part in ("bootstrap", "n", "selection", "cost", "data", "environment"):  # it never came to these
            del record[part]
        record |= {"metrics": {}, "error": {"type": "RuntimeError", "message": failed, "traceback": "Traceback ..."}}
    return record | changes


def _metric(rng: random.Random, value: float) -> dict[str, Any]:
    half = rng.uniform(0.02, 0.06)
    return {
        "value": value,
        "low": max(0.0, value - half),
        "high": min(1.0, value + half),
        "n_resamples": 1000,
        "undefined": 0,
    }


def write_record(root: Path, record: dict[str, Any], name: str = "") -> Path:
    """Write one record into a directory of its own under `root`; returns the path of its `record.json`."""
    text = json.dumps(record)
    directory = root / (name or hashlib.sha256(text.encode()).hexdigest()[:16])
    directory.mkdir(parents=True)
    path = directory / "record.json"
    path.write_text(text, encoding="utf-8")
    return path


def demo_records() -> list[dict[str, Any]]:
    """A small study with everything in it: both tasks, seeds, transfers, failures, gaps, and warnings."""
    records = []
    for model in ("tiny_clip", "tiny_medclip"):
        for domain in MODALITIES:
            for finetune in ("zero_shot", "linear_probe", "lora", "full"):
                scope = "vision" if finetune == "lora" else ""
                if (model, domain, finetune) == ("tiny_clip", "phantom_fundus", "full"):
                    continue
                broken = (model, domain, finetune) == ("tiny_medclip", "phantom_ultrasound", "full")
                for seed in range(3 if finetune == "linear_probe" else 1):
                    failed = "loss is not finite at step 12\nlower the learning rate" if broken else ""
                    records.append(make_record(model, domain, finetune=finetune, scope=scope, seed=seed, failed=failed))
        records += [
            make_record(model, domain, trained_on="phantom_fundus")
            for domain in MODALITIES
            if domain != "phantom_fundus"
        ]
    for model in ("tiny_llava", "tiny_llava_med"):
        for domain in list(MODALITIES)[:3]:
            for finetune, scope in (("zero_shot", ""), ("lora", "ML")):
                records.append(make_record(model, domain, task="vqa", finetune=finetune, scope=scope))
    records[0]["data"]["left_out"] = [{"image": "a.png", "reason": "truncated", "examples": 1}]
    records[0]["data"]["audit"]["train-test"]["near_duplicates"] = 3
    records[1]["metrics"]["f1"] = {"value": None, "low": None, "high": None, "n_resamples": 1000, "undefined": 1000}
    records[3]["config"]["trainer"]["max_epochs"] = 20
    return records
